//! `netboot promote`: gives one environment the image that another one has, by changing one line
//! of the site.
//!
//! It refuses to touch anything else: comments, order and layout of the file stay as they are.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use netboot_core::difference::{Difference, Version, difference};
use netboot_core::site::{ImageRef, Site, SourceFile};
use serde_json::json;
use toml_edit::{DocumentMut, Item, TableLike};

use super::{Exit, Failure, Format, SiteDirectory, print};
use crate::site::Files;

/// Give one environment the image that another one has.
///
/// It changes one line of the site directory; `netboot apply` then makes the appliance serve it,
/// and `netboot rollout` deploys it.
#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The role whose image is promoted.
    role: String,
    /// The environment that has the image.
    #[arg(long, value_name = "ENVIRONMENT")]
    from: String,
    /// The environment that gets it.
    #[arg(long, value_name = "ENVIRONMENT")]
    to: String,
    #[command(flatten)]
    site: SiteDirectory,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

/// Why an image is not promoted.
#[derive(Debug, thiserror::Error)]
enum PromoteError {
    #[error("the site has no {what} `{name}`")]
    Unknown { what: &'static str, name: String },
    #[error("`{from}` and `{to}` are the same environment")]
    Same { from: String, to: String },
    #[error("no file of the site holds [environment.{name}] as a table that can be edited")]
    Place { name: String },
    #[error("failed to read `{}`", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("failed to write `{}`", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("`{}` is not TOML", path.display())]
    Toml {
        path: PathBuf,
        source: toml_edit::TomlError,
    },
    #[error("the change would mean more than it should; edit the file by hand")]
    More,
}

/// The one line that changes.
#[derive(Debug)]
struct Edit {
    path: PathBuf,
    old: String,
    new: String,
    difference: Difference,
}

impl Promote {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let (_, site) = Files::read(&self.site.site)?;
        let Some(edit) = self.edit(&site).map_err(configuration)? else {
            if self.format.json {
                print(&format!("{}\n", json!({ "changed": false })))?;
            }
            eprintln!(
                "`{}` has the image of `{}` for role `{}` already",
                self.to, self.from, self.role
            );
            return Ok(Exit::Done);
        };
        if !self.dry_run {
            write(&edit).map_err(Failure::new)?;
        }
        if self.format.json {
            let told = json!({
                "changed": !self.dry_run,
                "path": edit.path.display().to_string(),
                "lines": lines(&edit.old, &edit.new),
                "difference": edit.difference,
            });
            print(&format!("{told}\n"))?;
        } else {
            let mut text = format!("{}\n", edit.path.display());
            for line in lines(&edit.old, &edit.new) {
                text.push_str(&line);
                text.push('\n');
            }
            print(&format!("{text}{}", edit.difference))?;
        }
        Ok(Exit::Done)
    }

    /// Finds the line and its new value; none when it is so already.
    fn edit(&self, site: &Site) -> Result<Option<Edit>, PromoteError> {
        if self.from == self.to {
            let (from, to) = (self.from.clone(), self.to.clone());
            return Err(PromoteError::Same { from, to });
        }
        let role = site.roles.get(&*self.role).ok_or(PromoteError::Unknown {
            what: "role",
            name: self.role.clone(),
        })?;
        let image = |name: &str| -> Result<&ImageRef, PromoteError> {
            let environment = site.environments.get(name).ok_or(PromoteError::Unknown {
                what: "environment",
                name: name.to_owned(),
            })?;
            Ok(environment.images.get(&role.name).unwrap_or(&role.image))
        };
        let (promoted, before) = (image(&self.from)?, image(&self.to)?);
        if promoted == before {
            return Ok(None);
        }
        let paths = toml_files(&self.site.site)?;
        let texts = read_all(&paths)?;
        for (path, old) in paths.iter().zip(&texts) {
            let Some(new) = set_image(path, old, &self.to, &self.role, promoted)? else {
                continue;
            };
            let edited = paths.iter().zip(&texts).map(|(other, text)| SourceFile {
                path: other.display().to_string().into(),
                text: if other == path { &new } else { text }.as_str().into(),
            });
            let edited: Vec<SourceFile> = edited.collect();
            let after = Site::check(&edited).map_err(|_| PromoteError::More)?;
            let difference = told(site, &after);
            if difference.changes.len() != 1 || difference.changes[0].facts.len() != 1 {
                return Err(PromoteError::More);
            }
            return Ok(Some(Edit {
                path: path.clone(),
                old: old.clone(),
                new,
                difference,
            }));
        }
        let name = self.to.clone();
        Err(PromoteError::Place { name })
    }
}

fn configuration(error: PromoteError) -> Failure {
    let exit = match error {
        PromoteError::Write { .. } => Exit::Failed,
        _ => Exit::Configuration,
    };
    Failure::new(error).exit(exit)
}

fn told(old: &Site, new: &Site) -> Difference {
    let files = std::collections::BTreeMap::new();
    let version = |site| Version {
        site,
        files: &files,
    };
    difference(version(old), version(new))
}

fn toml_files(directory: &Path) -> Result<Vec<PathBuf>, PromoteError> {
    crate::site::paths(directory).map_err(|error| PromoteError::Read {
        path: directory.to_owned(),
        source: std::io::Error::other(error),
    })
}

fn read_all(paths: &[PathBuf]) -> Result<Vec<String>, PromoteError> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path).map_err(|source| PromoteError::Read {
            path: path.clone(),
            source,
        })
    };
    paths.iter().map(read).collect()
}

/// Sets `[environment.TO.images] ROLE = "IMAGE"` in the file that has the environment.
fn set_image(
    path: &Path,
    text: &str,
    environment: &str,
    role: &str,
    image: &ImageRef,
) -> Result<Option<String>, PromoteError> {
    let mut document: DocumentMut = text.parse().map_err(|source| PromoteError::Toml {
        path: path.to_owned(),
        source,
    })?;
    let table = document
        .get_mut("environment")
        .and_then(Item::as_table_like_mut)
        .and_then(|all| all.get_mut(environment))
        .and_then(Item::as_table_like_mut);
    let Some(table) = table else {
        return Ok(None);
    };
    let Some(images) = images_of(table) else {
        return Ok(None);
    };
    match images.get_mut(role).and_then(Item::as_value_mut) {
        Some(value) => {
            // What stands around the value, a comment behind it above all, is part of the line.
            let around = value.decor().clone();
            *value = image.to_string().into();
            *value.decor_mut() = around;
        }
        None => drop(images.insert(role, toml_edit::value(image.to_string()))),
    }
    Ok(Some(document.to_string()))
}

/// Returns the environment's table of images, made where there is none.
fn images_of(environment: &mut dyn TableLike) -> Option<&mut dyn TableLike> {
    if environment.get("images").is_none() {
        environment.insert("images", Item::Table(toml_edit::Table::new()));
    }
    environment.get_mut("images")?.as_table_like_mut()
}

fn write(edit: &Edit) -> Result<(), PromoteError> {
    let failed = |source| PromoteError::Write {
        path: edit.path.clone(),
        source,
    };
    // Beside the file and then renamed: whoever reads the site sees the old or the new line.
    let mut unfinished = edit.path.clone().into_os_string();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let about = fs::metadata(&edit.path).map_err(failed)?;
    fs::write(&unfinished, &edit.new)
        .and_then(|()| fs::set_permissions(&unfinished, about.permissions()))
        .and_then(|()| fs::File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, &edit.path))
        .map_err(failed)
}

/// Returns the lines that differ, as `-` and `+`; the rest of the text is equal by construction.
fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let tails = old[head..].iter().rev().zip(new[head..].iter().rev());
    let tail = tails.take_while(same).count();
    let gone = old[head..old.len() - tail].iter();
    let come = new[head..new.len() - tail].iter();
    gone.map(|line| format!("-{line}"))
        .chain(come.map(|line| format!("+{line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "\
# What hosts are for.
[site]
name = \"lab\"
[[network]]
name = \"rack\"
subnet = \"10.77.0.0/24\"
appliance = \"10.77.0.1\"
[role.web]
image = \"host\"   # the newest

[environment.staging.images]
web = \"next\"

[environment.production] # paying customers
[environment.production.images]
db   =  \"host\"
web  =  \"host\"   # changed by `netboot promote`
[role.db]
image = \"host\"
";

    fn promote(directory: &Path, from: &str, to: &str) -> Promote {
        Promote {
            role: "web".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            site: SiteDirectory {
                site: directory.to_owned(),
            },
            dry_run: false,
            format: Format { json: false },
        }
    }

    fn edit(text: &str, from: &str, to: &str) -> Result<Option<Edit>, PromoteError> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("site.toml"), text).unwrap();
        let site = crate::site::load(directory.path()).unwrap();
        promote(directory.path(), from, to).edit(&site)
    }

    #[test]
    fn one_line_changes_and_its_comment_stays() {
        let edit = edit(SITE, "staging", "production").unwrap().unwrap();
        let expected = SITE.replace("web  =  \"host\"   #", "web  =  \"next\"   #");
        assert_eq!(edit.new, expected);
        assert_eq!(
            lines(&edit.old, &edit.new),
            [
                "-web  =  \"host\"   # changed by `netboot promote`",
                "+web  =  \"next\"   # changed by `netboot promote`"
            ]
        );
        assert_eq!(
            edit.difference.to_string(),
            "~ environment production\n    images.web: host -> next\n"
        );
    }

    #[test]
    fn a_line_is_added_where_there_is_none() {
        let without = SITE.replace("web  =  \"host\"   # changed by `netboot promote`\n", "");
        let edit = edit(&without, "staging", "production").unwrap().unwrap();
        assert_eq!(lines(&edit.old, &edit.new), ["+web = \"next\""]);
        let bare = "[site]\nname = \"lab\"\n[role.web]\nimage = \"host\"\n[environment.a.images]\nweb = \"next\"\n[environment.b]\n# the end\n";
        let edit = super::tests::edit(bare, "a", "b").unwrap().unwrap();
        assert!(
            edit.new.contains("web = \"next\"\n[environment.b]"),
            "{}",
            edit.new
        );
        assert!(edit.new.contains("# the end"), "{}", edit.new);
    }

    #[test]
    fn what_cannot_be_promoted_is_told() {
        for (from, to, expected) in [
            (
                "staging",
                "staging",
                "`staging` and `staging` are the same environment",
            ),
            (
                "nowhere",
                "production",
                "the site has no environment `nowhere`",
            ),
            (
                "staging",
                "nowhere",
                "the site has no environment `nowhere`",
            ),
        ] {
            assert_eq!(edit(SITE, from, to).unwrap_err().to_string(), expected);
        }
        let same = SITE.replace("\"next\"", "\"host\"");
        assert!(edit(&same, "staging", "production").unwrap().is_none());
    }

    #[test]
    fn a_dry_run_writes_nothing_and_a_real_one_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.toml");
        fs::write(&path, SITE).unwrap();
        let dry = Promote {
            dry_run: true,
            ..promote(directory.path(), "staging", "production")
        };
        dry.run().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), SITE);
        for _ in 0..2 {
            promote(directory.path(), "staging", "production")
                .run()
                .unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.matches("\"next\"").count(), 2);
        }
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left behind");
    }
}
