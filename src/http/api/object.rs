//! Objects of the API: what is serialised and what is documented come from one definition.

use std::collections::BTreeMap;
use std::sync::Arc;

/// One field of an object.
pub struct Field {
    /// Name.
    pub name: &'static str,
    /// Type in words.
    pub kind: String,
    /// What it tells.
    pub doc: &'static str,
}

/// A JSON type in words.
pub trait Told {
    /// The words.
    fn kind() -> String;
    /// Objects inside it, itself first.
    fn objects(_into: &mut Vec<Object>) {}
}

/// An object as documented.
pub struct Object {
    /// Name of the type.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its fields.
    pub fields: Vec<Field>,
}

macro_rules! told {
    ($($kind:literal: $($type:ty),*;)*) => {
        $($(impl Told for $type {
            fn kind() -> String {
                $kind.to_owned()
            }
        })*)*
    };
}

told! {
    "string": String, &'static str, Arc<str>;
    "integer": u64, u32, usize;
    "number": f64, f32;
    "boolean": bool;
}

impl<T: Told> Told for Option<T> {
    fn kind() -> String {
        format!("{} or null", T::kind())
    }
    fn objects(into: &mut Vec<Object>) {
        T::objects(into);
    }
}

impl<T: Told> Told for Vec<T> {
    fn kind() -> String {
        format!("list of {}", T::kind())
    }
    fn objects(into: &mut Vec<Object>) {
        T::objects(into);
    }
}

impl<T: Told> Told for BTreeMap<String, T> {
    fn kind() -> String {
        format!("object of {}", T::kind())
    }
    fn objects(into: &mut Vec<Object>) {
        T::objects(into);
    }
}

/// A struct that is serialised with its fields' names and documented with their comments.
macro_rules! object {
    ($(#[doc = $about:literal])* $name:ident { $($(#[doc = $doc:literal])* $field:ident: $type:ty,)* }) => {
        $(#[doc = $about])*
        #[derive(serde::Serialize, Clone, Debug)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $crate::http::api::object::Told for $name {
            fn kind() -> String {
                concat!("[", stringify!($name), "]").to_owned()
            }

            fn objects(into: &mut Vec<$crate::http::api::object::Object>) {
                use $crate::http::api::object::{Field, Object, Told};
                if into.iter().any(|known| known.name == stringify!($name)) {
                    return;
                }
                into.push(Object {
                    name: stringify!($name),
                    about: concat!($($about),*),
                    fields: vec![$(Field {
                        name: stringify!($field),
                        kind: <$type as Told>::kind(),
                        doc: concat!($($doc),*),
                    }),*],
                });
                $(<$type as Told>::objects(into);)*
            }
        }
    };
}
pub(crate) use object;
