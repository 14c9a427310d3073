//! An enumeration that knows its members.

/// Declares an enumeration and its `ALL`: every member, in the order in which they are written.
macro_rules! with_all {
    (
        $(#[$about:meta])*
        pub enum $set:ident {
            $($(#[$more:meta])* $member:ident,)*
        }
    ) => {
        $(#[$about])*
        pub enum $set {
            $($(#[$more])* $member,)*
        }

        impl $set {
            /// Every member, in the order in which they are written.
            pub const ALL: &[$set] = &[$($set::$member,)*];
        }
    };
}

pub(crate) use with_all;
