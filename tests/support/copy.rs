//! A COPY in both directions whose bytes say where they belong.

use super::{Random, raw, seed};

const LINE: usize = 1000;

/// Bytes that say where they are: what is lost, doubled or moved shows.
fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8 % 26 + b'a'
}

/// COPY of so many kilobytes into a table and out again, messages cut anywhere on their way in.
pub fn copy_both_ways(client: &mut raw::Client, lines: usize) {
    client.simple("BEGIN; CREATE TEMP TABLE big (at serial, line text)").unwrap();
    client.send_frame(b'Q', &raw::c_string("COPY big (line) FROM STDIN")).unwrap();
    assert_eq!(client.read().unwrap().tag, b'G');
    let mut random = Random::new(seed());
    let mut batch = Vec::new();
    for line in 0..lines {
        let text: Vec<u8> = (0..LINE).map(|i| pattern(line * LINE + i)).chain([b'\n']).collect();
        batch.extend(raw::frame(b'd', &text));
        // Cut anywhere, headers included.
        if batch.len() > 20_000 {
            let cut = batch.len() - random.below(7) as usize;
            client.send(&batch[..cut]).unwrap();
            batch.drain(..cut);
        }
    }
    batch.extend(raw::frame(b'c', b""));
    client.send(&batch).unwrap();
    client.answer().unwrap();
    client.send_frame(b'Q', &raw::c_string("COPY (SELECT line FROM big ORDER BY at) TO STDOUT")).unwrap();
    assert_eq!(client.read().unwrap().tag, b'H');
    let mut at = 0;
    loop {
        let message = client.read().unwrap();
        match message.tag {
            b'd' => {
                let line = &message.body[..message.body.len() - 1];
                assert!(line.iter().enumerate().all(|(i, b)| *b == pattern(at + i)), "line at {at}");
                at += line.len();
            }
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(at, lines * LINE);
    client.simple("ROLLBACK").unwrap();
}
