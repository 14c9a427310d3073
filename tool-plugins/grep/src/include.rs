//! The glob that chooses which files are searched.

use globset::{GlobBuilder, GlobMatcher};

/// Which files are searched: all, or those that a glob names. As with grep's `--include`, a glob without `/` is held
/// against the name of the file; one with `/`, against its path, from the searched folder or from the workspace.
pub enum Include {
    All,
    Name(GlobMatcher),
    Path { glob: GlobMatcher, prefix: String },
}

impl Include {
    /// `prefix` is the searched folder, relative to the workspace, empty or with `/` at its end.
    pub fn new(glob: Option<&str>, prefix: &str) -> Result<Self, String> {
        let Some(glob) = glob.filter(|glob| !glob.is_empty()) else {
            return Ok(Self::All);
        };
        let relative = glob.trim_start_matches("./").trim_start_matches('/');
        let matcher = GlobBuilder::new(relative)
            .literal_separator(true)
            .build()
            .map_err(|error| format!("The glob in include is not valid: {error}."))?
            .compile_matcher();
        Ok(if relative.contains('/') {
            Self::Path {
                glob: matcher,
                prefix: prefix.to_owned(),
            }
        } else {
            Self::Name(matcher)
        })
    }

    /// Whether to search the file with this name, at this path relative to the searched folder.
    pub fn takes(&self, name: &str, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(glob) => glob.is_match(name),
            Self::Path { glob, prefix } => {
                glob.is_match(path) || (!prefix.is_empty() && glob.is_match(format!("{prefix}{path}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Include;

    #[test]
    fn a_glob_is_held_against_the_name_or_the_path() {
        for (glob, prefix, path, taken) in [
            ("*.rs", "", "src/a.rs", true),
            ("*.rs", "", "src/a.rss", false),
            ("*.{ts,tsx}", "", "a.tsx", true),
            ("[ab].c", "", "x/b.c", true),
            ("Make*", "", "deep/down/Makefile", true),
            (".*", "", ".env", true),
            ("src/*.rs", "", "src/a.rs", true),
            ("src/*.rs", "", "src/sub/a.rs", false),
            ("src/**/*.rs", "", "src/sub/a.rs", true),
            ("**/*.rs", "", "a.rs", true),
            ("./src/*.rs", "", "src/a.rs", true),
            ("src/*.rs", "src/", "a.rs", true),
            ("sub/*.rs", "src/", "sub/a.rs", true),
            ("other/*.rs", "src/", "a.rs", false),
        ] {
            let name = path.rsplit('/').next().unwrap_or(path);
            let include = Include::new(Some(glob), prefix);
            assert_eq!(
                include.map(|include| include.takes(name, path)),
                Ok(taken),
                "{glob} {prefix} {path}"
            );
        }
        assert!(Include::new(Some("[a"), "").is_err_and(|error| error.contains("include")));
        assert!(Include::new(Some(""), "").is_ok_and(|include| include.takes("a", "a")));
    }
}
