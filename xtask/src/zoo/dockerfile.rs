//! The Dockerfile's target `full`: what it runs to make the image, and what it says of its containers. An image that
//! derives from it has the same, and needs no other build of ours.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::pod::Image;

/// The target, as far as it does not copy what is shipped.
pub struct Full {
    /// The command that installs the image's packages and makes its user.
    pub run: String,
    env: Vec<String>,
    user: String,
    working_dir: String,
    entrypoint: Vec<String>,
}

impl Full {
    pub fn read(layout: &Layout) -> Result<Self> {
        let file = layout.root.join("Dockerfile");
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} has no target `full` as it is known here", file.display()))
    }

    fn parse(dockerfile: &str) -> Option<Self> {
        let (_, full) = dockerfile.split_once(" AS full\n")?;
        let full = full.split("\nFROM ").next()?;
        let instructions = instructions(full);
        let find = |name: &str| instructions.iter().find_map(|line| line.strip_prefix(name));
        Some(Self {
            run: find("RUN ")?.to_owned(),
            env: find("ENV ")?.split_whitespace().map(str::to_owned).collect(),
            user: find("USER ")?.to_owned(),
            working_dir: find("WORKDIR ")?.to_owned(),
            entrypoint: serde_json::from_str(find("ENTRYPOINT ")?).ok()?,
        })
    }

    /// A container's image with this root file system.
    pub fn image(self, root: &Path) -> Image {
        Image {
            root: root.to_owned(),
            entrypoint: self.entrypoint,
            env: self.env,
            user: self.user,
            working_dir: self.working_dir,
            // Of Docker, and not of Kubernetes.
            health: Vec::new(),
        }
    }
}

/// Each instruction in one line, without comments.
fn instructions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut instruction = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(more) => instruction.push_str(more),
            None => found.push(std::mem::take(&mut instruction) + line),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_read_without_comments_and_without_others() {
        let text = "FROM a AS other\nRUN no\n\nFROM b AS full\n# Words.\nRUN one \\\n    # Why.\n    && two\n\
                    ENV A=1 B=2\nUSER 7:8\nWORKDIR /w\nENTRYPOINT [\"p\", \"q\"]\n\nFROM c AS last\nUSER 9\n";
        let full = Full::parse(text).unwrap();
        assert_eq!(full.run, "one     && two");
        let image = full.image(Path::new("/root"));
        assert_eq!((&*image.user, &*image.working_dir), ("7:8", "/w"));
        assert_eq!(
            (image.env, image.entrypoint),
            (vec!["A=1".into(), "B=2".into()], vec!["p".into(), "q".into()])
        );
        assert!(Full::parse("FROM b AS full\nRUN one\n\nFROM c AS last\nUSER 9\n").is_none());
    }

    #[test]
    fn ours_is_known() {
        let full = Full::parse(include_str!("../../../Dockerfile")).unwrap();
        assert!(
            full.run.starts_with("apt-get update") && full.run.contains("useradd"),
            "{}",
            full.run
        );
        assert_eq!(full.image(Path::new("/")).user, "10001:0");
    }
}
