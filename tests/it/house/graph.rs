//! Which file of a crate imports which, whatever modules a name passes through on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::Path;

use crate::house::source::{self, Module, Names};

/// The files of a crate, each with the files that it imports and the names that it takes there.
pub(super) type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The modules of a crate, without those that are compiled for tests alone.
pub(super) struct Crate {
    /// That of the root is the first.
    modules: Vec<Node>,
    /// Files of modules that are compiled for tests alone.
    pub(super) test_files: BTreeSet<String>,
}

struct Node {
    file: String,
    parent: Option<usize>,
    children: Vec<(String, usize)>,
    text: Module,
}

/// What a path leads to. A path to another crate leads to nothing.
#[derive(Clone)]
enum Found {
    Module(usize),
    /// What is in a module that is no façade, by its name there.
    Item(usize, String),
}

/// Names that are being looked up, each in a module: `use x::x` may lead to itself.
type Open<'a> = &'a mut Vec<(usize, String)>;

impl Crate {
    /// Reads the crate with this root. `text_of` is given paths.
    pub(super) fn read(root: &str, text_of: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut read = Self {
            modules: vec![],
            test_files: BTreeSet::new(),
        };
        read.add_file(root, &folder_of(root), None, text_of);
        read
    }

    /// Adds the module of a file, whose own modules are in `folder`.
    fn add_file(
        &mut self,
        file: &str,
        folder: &str,
        parent: Option<usize>,
        text_of: &dyn Fn(&str) -> Option<String>,
    ) -> usize {
        let text = text_of(file).unwrap_or_else(|| panic!("no {file}"));
        let text = source::read(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        self.add(text, file, folder, parent, text_of)
    }

    fn add(
        &mut self,
        mut text: Module,
        file: &str,
        folder: &str,
        parent: Option<usize>,
        text_of: &dyn Fn(&str) -> Option<String>,
    ) -> usize {
        let (inline, files) = (mem::take(&mut text.inline), mem::take(&mut text.files));
        let number = self.modules.len();
        self.modules.push(Node {
            file: file.to_owned(),
            parent,
            children: vec![],
            text,
        });
        for (name, text) in inline {
            let inside = format!("{folder}/{name}");
            let child = self.add(text, file, &inside, Some(number), text_of);
            self.modules[number].children.push((name, child));
        }
        for module in files {
            let below = format!("{folder}/{}", module.name);
            let (path, inside) = match module.path {
                Some(path) => {
                    let path = format!("{}/{path}", folder_of(file));
                    let inside = folder_of(&path);
                    (path, inside)
                }
                None => match format!("{below}.rs") {
                    path if text_of(&path).is_some() => (path, below),
                    _ => (format!("{below}/mod.rs"), below),
                },
            };
            if module.is_for_tests {
                self.test_files.insert(path);
            } else {
                let child = self.add_file(&path, &inside, Some(number), text_of);
                self.modules[number].children.push((module.name, child));
            }
        }
        number
    }

    /// Files that define nothing.
    pub(super) fn facades(&self) -> BTreeSet<&str> {
        let facades = self.modules.iter().filter(|module| module.text.is_facade);
        facades.map(|module| &*module.file).collect()
    }

    /// Each path that is written in the crate, with its file.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&str, &Names)> {
        self.modules.iter().flat_map(|module| {
            let bound = module.text.bound.iter().map(|(_, path)| path);
            let paths = bound.chain(&module.text.globs).chain(&module.text.paths);
            paths.map(|path| (&*module.file, path))
        })
    }

    /// All files are in it. None imports a façade: a name leads to the file that defines it.
    pub(super) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (number, module) in self.modules.iter().enumerate() {
            let of_file = imports.entry(module.file.clone()).or_default();
            let mut take = |found: Found, name: &str| {
                let (from, name) = match &found {
                    Found::Item(from, name) => (*from, &**name),
                    Found::Module(from) => (*from, name),
                };
                let from = &self.modules[from];
                if from.file != module.file && !from.text.is_facade {
                    let names = of_file.entry(from.file.clone()).or_default();
                    names.insert(name.to_owned());
                }
            };
            let Module {
                bound,
                globs,
                paths,
                ..
            } = &module.text;
            for path in bound.iter().map(|(_, path)| path).chain(paths) {
                for found in self.resolve(number, path, &mut vec![]) {
                    take(found, &path[path.len() - 1]);
                }
            }
            for found in globs
                .iter()
                .flat_map(|glob| self.resolve(number, glob, &mut vec![]))
            {
                for found in self.all_in(found, &mut BTreeSet::new()) {
                    take(found, "*");
                }
            }
        }
        imports
    }

    /// What `path` leads to where it is written in the module `at`.
    fn resolve(&self, at: usize, path: &[String], open: Open<'_>) -> Vec<Found> {
        let Some((first, rest)) = path.split_first() else {
            return vec![];
        };
        let start = match &**first {
            "crate" => vec![Found::Module(0)],
            "self" => vec![Found::Module(at)],
            "super" => vec![Found::Module(self.parent(at))],
            name => self.in_scope(at, name, open),
        };
        rest.iter().fold(start, |found, name| {
            let step = |found| match found {
                Found::Module(at) if name == "super" => vec![Found::Module(self.parent(at))],
                Found::Module(at) => {
                    assert!(
                        self.may_have(at, name),
                        "{} has no {name}",
                        self.modules[at].file
                    );
                    self.member(at, name, open)
                }
                item @ Found::Item(..) => vec![item],
            };
            found.into_iter().flat_map(step).collect()
        })
    }

    /// What `name` is inside of a module, if it is not an item of that module. By a glob, a name
    /// leads to whatever the glob takes from: which items there are is not read.
    fn in_scope(&self, at: usize, name: &str, open: Open<'_>) -> Vec<Found> {
        let key = (at, name.to_owned());
        if open.contains(&key) {
            return vec![];
        }
        open.push(key);
        let mut found = self.children(at, name);
        let Module { bound, globs, .. } = &self.modules[at].text;
        for (_, path) in bound.iter().filter(|(bound, _)| bound == name) {
            found.extend(self.resolve(at, path, open));
        }
        if found.is_empty() {
            for glob in globs {
                for module in self.resolve(at, glob, open) {
                    if let Found::Module(module) = module {
                        let inside = self.in_scope(module, name, open);
                        found.extend(match inside.is_empty() {
                            true => self.member(module, name, open),
                            false => inside,
                        });
                    }
                }
            }
        }
        open.pop();
        found
    }

    /// What `name` is to code that takes it from a module: in that module, even if a `use` there
    /// binds it, unless the module is a façade.
    fn member(&self, at: usize, name: &str, open: Open<'_>) -> Vec<Found> {
        let children = self.children(at, name);
        match self.modules[at].text.is_facade {
            _ if !children.is_empty() => children,
            true => self.in_scope(at, name, open),
            false => vec![Found::Item(at, name.to_owned())],
        }
    }

    fn may_have(&self, at: usize, name: &str) -> bool {
        let Node { text, children, .. } = &self.modules[at];
        !text.is_facade
            || !text.globs.is_empty()
            || text.bound.iter().any(|(bound, _)| bound == name)
            || children.iter().any(|(child, _)| child == name)
    }

    fn children(&self, at: usize, name: &str) -> Vec<Found> {
        let children = self.modules[at].children.iter();
        let named = children.filter(|(child, _)| child == name);
        named.map(|(_, child)| Found::Module(*child)).collect()
    }

    fn parent(&self, at: usize) -> usize {
        self.modules[at].parent.unwrap()
    }

    /// What a glob takes: of a façade all that it exports.
    fn all_in(&self, found: Found, seen: &mut BTreeSet<usize>) -> Vec<Found> {
        let Found::Module(at) = found else {
            return vec![found];
        };
        let text = &self.modules[at].text;
        if !text.is_facade || !seen.insert(at) {
            return vec![found];
        }
        let mut all = vec![];
        for (_, path) in &text.bound {
            all.extend(self.resolve(at, path, &mut vec![]));
        }
        for glob in &text.globs {
            for found in self.resolve(at, glob, &mut vec![]) {
                all.extend(self.all_in(found, seen));
            }
        }
        all
    }
}

fn folder_of(file: &str) -> String {
    let folder = Path::new(file).parent().unwrap();
    folder.to_str().unwrap().to_owned()
}
