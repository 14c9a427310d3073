//! What one case does, made from any bytes: so that a fuzzer can steer it, and a seed can repeat it.

use arbitrary::{Result, Unstructured};

/// Names, few enough to meet one another, with those that are easily mishandled among them.
pub const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"c",
    b"folder",
    b"file.txt",
    b".hidden",
    b"with space",
    b"-rf",
    b"...",
    b"*",
    b"two\nlines",
    b"\xe2\x80\xaertl",
    b"\"quoted\"",
    b"back\\slash",
    b"esc\x1b[2J",
    "ünï".as_bytes(),
    b"a:1:b",
    b"~",
    b"\xff\xfe",
    &[b'x'; 255],
];

/// Everything here is an index into what is there when its turn comes, so that most of it hits something.
#[derive(Clone, Debug)]
pub struct Case {
    /// Makes the tree.
    pub tree: Vec<Change>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// The repository changes something, as a command or a build may at any time.
    Repository(Change),
    Tool(Call),
}

/// A name in a folder that is there.
#[derive(Clone, Debug)]
pub struct At {
    pub folder: usize,
    pub name: usize,
}

#[derive(Clone, Debug)]
pub enum Change {
    File(At, Vec<u8>),
    Folder(At),
    Link(At, Target),
    Fifo(At),
    /// A second name of a file.
    HardLink(usize, At),
    Rename(usize, At),
    /// Two entries change places.
    Swap(usize, usize),
    /// A link takes the place of an entry and all below it.
    Replace(usize, Target),
    Remove(usize),
}

/// Where a link points.
#[derive(Clone, Debug)]
pub enum Target {
    /// The shortest way to an entry.
    Entry { entry: usize, slash: bool },
    /// So many times up, then these parts.
    Parts { up: usize, parts: Vec<Part> },
    /// The absolute path of an entry.
    Absolute(usize),
    /// One of the places outside.
    Outside(usize),
}

#[derive(Clone, Debug)]
pub enum Part {
    Name(usize),
    Up,
    Here,
    Empty,
}

#[derive(Clone, Debug)]
pub enum Call {
    Read(Path),
    Write { path: Path, content: String, append: bool },
    List { path: Path, recursive: bool, hidden: bool },
    Grep(Path),
}

/// A path as a model might write it.
#[derive(Clone, Debug)]
pub enum Path {
    Near {
        start: Start,
        /// An entry, or the root.
        entry: Option<usize>,
        parts: Vec<Part>,
        slash: bool,
    },
    /// One of those that lead out, or are no paths.
    Outside(usize),
}

/// How a path begins.
#[derive(Clone, Copy, Debug)]
pub enum Start {
    Relative,
    Dot,
    /// The workspace's own path.
    Absolute,
    /// The same with a `/` too many and a `.`.
    AbsoluteOdd,
}

impl Case {
    pub fn generate(bytes: &[u8]) -> Result<Self> {
        let mut u = Unstructured::new(bytes);
        Ok(Self {
            tree: many(&mut u, 1, 24, change)?,
            steps: many(&mut u, 1, 16, |u| {
                Ok(if u.ratio(1, 4)? {
                    Step::Repository(change(u)?)
                } else {
                    Step::Tool(call(u)?)
                })
            })?,
        })
    }
}

fn many<T>(
    u: &mut Unstructured<'_>,
    least: usize,
    most: usize,
    one: impl Fn(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(least..=most)?;
    (0..count).map(|_| one(u)).collect()
}

fn index(u: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(u.arbitrary::<u8>()?))
}

fn at(u: &mut Unstructured<'_>) -> Result<At> {
    Ok(At {
        folder: index(u)?,
        name: index(u)?,
    })
}

fn change(u: &mut Unstructured<'_>) -> Result<Change> {
    Ok(match u.int_in_range(0..=15)? {
        0..=3 => Change::File(at(u)?, content(u)?),
        4..=6 => Change::Folder(at(u)?),
        7..=10 => Change::Link(at(u)?, target(u)?),
        11 => Change::HardLink(index(u)?, at(u)?),
        12 => Change::Rename(index(u)?, at(u)?),
        13 => Change::Swap(index(u)?, index(u)?),
        14 => Change::Replace(index(u)?, target(u)?),
        _ if u.ratio(1, 2)? => Change::Remove(index(u)?),
        _ => Change::Fifo(at(u)?),
    })
}

fn content(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let number = u.arbitrary::<u16>()?;
    Ok(match u.int_in_range(0..=7)? {
        0 => Vec::new(),
        1 => format!("inside {number}\0binary\n").into_bytes(),
        2 => [format!("inside {number} ").as_bytes(), b"\xff\xc3\n"].concat(),
        3 => format!("first\ninside {number}\nlast").into_bytes(),
        _ => format!("inside {number}\n").into_bytes(),
    })
}

fn target(u: &mut Unstructured<'_>) -> Result<Target> {
    Ok(match u.int_in_range(0..=7)? {
        0..=3 => Target::Entry {
            entry: index(u)?,
            slash: u.ratio(1, 6)?,
        },
        4..=5 => Target::Parts {
            up: u.int_in_range(0..=3)?,
            parts: many(u, 0, 3, part)?,
        },
        6 => Target::Absolute(index(u)?),
        _ => Target::Outside(index(u)?),
    })
}

fn part(u: &mut Unstructured<'_>) -> Result<Part> {
    Ok(match u.int_in_range(0..=9)? {
        0..=5 => Part::Name(index(u)?),
        6..=7 => Part::Up,
        8 => Part::Here,
        _ => Part::Empty,
    })
}

fn call(u: &mut Unstructured<'_>) -> Result<Call> {
    Ok(match u.int_in_range(0..=3)? {
        0 => Call::Read(path(u)?),
        1 => Call::Write {
            path: path(u)?,
            content: format!("written {}\n", u.arbitrary::<u16>()?),
            append: u.ratio(1, 2)?,
        },
        2 => Call::List {
            path: path(u)?,
            recursive: u.ratio(1, 2)?,
            hidden: u.ratio(1, 2)?,
        },
        _ => Call::Grep(path(u)?),
    })
}

fn path(u: &mut Unstructured<'_>) -> Result<Path> {
    if u.ratio(1, 8)? {
        return Ok(Path::Outside(index(u)?));
    }
    let start = match u.int_in_range(0..=7)? {
        0..=4 => Start::Relative,
        5 => Start::Dot,
        6 => Start::Absolute,
        _ => Start::AbsoluteOdd,
    };
    Ok(Path::Near {
        start,
        entry: if u.ratio(7, 8)? { Some(index(u)?) } else { None },
        parts: if u.ratio(1, 2)? {
            many(u, 0, 4, part)?
        } else {
            Vec::new()
        },
        slash: u.ratio(1, 8)?,
    })
}
