//! Transaction status, as every ReadyForQuery tells it (protocol-message-formats).

/// Transaction status of a ReadyForQuery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TxStatus {
    /// `I`: no transaction.
    #[default]
    Idle,
    /// `T`: in a transaction block.
    Transaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TxStatus {
    /// From the byte of ReadyForQuery.
    pub fn from_byte(b: u8) -> Option<Self> {
        match b {
            b'I' => Some(TxStatus::Idle),
            b'T' => Some(TxStatus::Transaction),
            b'E' => Some(TxStatus::Failed),
            _ => None,
        }
    }

    /// The byte of ReadyForQuery.
    pub fn byte(self) -> u8 {
        match self {
            TxStatus::Idle => b'I',
            TxStatus::Transaction => b'T',
            TxStatus::Failed => b'E',
        }
    }
}
