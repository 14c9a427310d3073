//! Sets of names that others know: error codes, levels, kinds. Each is written once, as a list of its members with
//! their names and what they mean; the enumeration, its list, and the documents follow from that, and a `match` holds
//! them complete.

/// Declares an enumeration whose members have a name in events and documents.
///
/// `TABLE` has every member with its name and its meaning, in the order in which they are written. Who declares one has
/// `serde` among its own dependencies.
#[macro_export]
macro_rules! closed_set {
    (
        $(#[$about:meta])*
        pub enum $set:ident {
            $($(#[$more:meta])* $member:ident = $name:literal, $meaning:literal;)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ::serde::Serialize, ::serde::Deserialize)]
        pub enum $set {
            $(
                #[doc = $meaning]
                $(#[$more])*
                #[serde(rename = $name)]
                $member,
            )*
        }

        const _: () = {
            $(assert!(!$name.is_empty() && !$meaning.is_empty());)*
        };

        impl $set {
            /// Every member with its name and its meaning: documents are written from it.
            pub const TABLE: &[($set, &str, &str)] = &[$(($set::$member, $name, $meaning),)*];

            /// The name in events.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($set::$member => $name,)*
                }
            }
        }
    };
}
