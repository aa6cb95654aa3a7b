//! What the text of a file says about modules and names, read from its syntax tree.
//!
//! Code that is compiled for tests alone is skipped, and so are attributes and visibilities. Of
//! what a macro is given, and of the body of a `macro_rules!`, only paths are read: a `use`
//! between these tokens binds no name, and of its group only the prefix is seen.

use syn::buffer::{Cursor, TokenBuffer};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta, MetaList, Token, UseTree, Visibility};

/// The names of a path as they are written, such as `crate`, `rpc`, `clip`.
pub(super) type Names = Vec<String>;

/// A module between braces, or a whole file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Module {
    pub(super) inline: Vec<(String, Self)>,
    pub(super) files: Vec<File>,
    /// Names that a `use` binds, each with the path that it stands for.
    pub(super) bound: Vec<(String, Names)>,
    pub(super) globs: Vec<Names>,
    /// Of expressions, types and patterns: those of several names.
    pub(super) paths: Vec<Names>,
    /// Whether it has `mod name;` and `pub use` only: such a module defines nothing.
    pub(super) is_facade: bool,
}

/// A `mod name;`.
#[derive(Debug, PartialEq)]
pub(super) struct File {
    pub(super) name: String,
    /// The value of its attribute `path`.
    pub(super) path: Option<String>,
    pub(super) is_for_tests: bool,
}

pub(super) fn read(text: &str) -> syn::Result<Module> {
    let file = syn::parse_file(text)?;
    let mut reader = Reader::default();
    reader.visit_file(&file);
    let items = &file.items;
    reader.module.is_facade = !items.is_empty() && items.iter().all(is_of_facade);
    Ok(reader.module)
}

fn is_of_facade(item: &Item) -> bool {
    match item {
        // A page of the manual has no items.
        Item::Mod(module) => module.content.as_ref().is_none_or(|(_, it)| it.is_empty()),
        Item::Use(item) => !matches!(item.vis, Visibility::Inherited),
        _ => false,
    }
}

#[derive(Default)]
struct Reader {
    module: Module,
}

impl Reader {
    fn bind(&mut self, tree: &UseTree, mut prefix: Names) {
        let (last, bound) = match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                return self.bind(&path.tree, prefix);
            }
            UseTree::Group(group) => {
                return group
                    .items
                    .iter()
                    .for_each(|tree| self.bind(tree, prefix.clone()));
            }
            UseTree::Glob(_) => return self.module.globs.push(prefix),
            UseTree::Name(name) => (&name.ident, &name.ident),
            UseTree::Rename(name) => (&name.ident, &name.rename),
        };
        if last != "self" || prefix.is_empty() {
            prefix.push(last.to_string());
        }
        let bound = match bound == "self" {
            true => prefix.last().cloned().unwrap(),
            false => bound.to_string(),
        };
        self.module.bound.push((bound, prefix));
    }

    fn read_tokens(&mut self, mut at: Cursor<'_>) {
        while !at.eof() {
            let (names, after) = path_at(at);
            if names.len() > 1 {
                self.module.paths.push(names);
            }
            if after != at {
                at = after;
            } else if let Some((inside, _, _, after)) = at.any_group() {
                self.read_tokens(inside);
                at = after;
            } else {
                at = at.token_tree().unwrap().1;
            }
        }
    }
}

/// The names that are joined by `::` from here on, and what is after them.
fn path_at(start: Cursor<'_>) -> (Names, Cursor<'_>) {
    let (mut names, mut end) = (vec![], start);
    let mut next = start.ident();
    while let Some((name, after)) = next {
        names.push(name.to_string());
        end = after;
        next = after_colon(after)
            .and_then(after_colon)
            .and_then(Cursor::ident);
    }
    (names, end)
}

fn after_colon(at: Cursor<'_>) -> Option<Cursor<'_>> {
    let (punct, after) = at.punct()?;
    (punct.as_char() == ':').then_some(after)
}

/// Visits nodes of these types unless they are compiled for tests alone.
macro_rules! skip_tests {
    ($($visit:ident: $node:ident),*) => {
        $(fn $visit(&mut self, node: &'ast syn::$node) {
            if !is_for_tests(&node.attrs) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Reader {
    skip_tests!(
        visit_arm: Arm, visit_expr_block: ExprBlock, visit_expr_call: ExprCall,
        visit_expr_if: ExprIf, visit_expr_method_call: ExprMethodCall, visit_field: Field,
        visit_field_value: FieldValue, visit_impl_item_const: ImplItemConst,
        visit_impl_item_fn: ImplItemFn, visit_impl_item_type: ImplItemType,
        visit_item_const: ItemConst, visit_item_enum: ItemEnum, visit_item_fn: ItemFn,
        visit_item_impl: ItemImpl, visit_item_macro: ItemMacro, visit_item_static: ItemStatic,
        visit_item_struct: ItemStruct, visit_item_trait: ItemTrait, visit_item_type: ItemType,
        visit_local: Local, visit_stmt_macro: StmtMacro, visit_trait_item_const: TraitItemConst,
        visit_trait_item_fn: TraitItemFn, visit_trait_item_type: TraitItemType,
        visit_variant: Variant
    );

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item_mod(&mut self, node: &'ast ItemMod) {
        let is_for_tests = is_for_tests(&node.attrs);
        let name = node.ident.to_string();
        let Some((_, items)) = &node.content else {
            let path = node.attrs.iter().find_map(path_of);
            return self.module.files.push(File {
                name,
                path,
                is_for_tests,
            });
        };
        if !is_for_tests {
            let mut reader = Self::default();
            items.iter().for_each(|item| reader.visit_item(item));
            self.module.inline.push((name, reader.module));
        }
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        // With `::` begins the name of another crate.
        if node.leading_colon.is_none() && !is_for_tests(&node.attrs) {
            self.bind(&node.tree, vec![]);
        }
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        if node.leading_colon.is_none() && node.segments.len() > 1 {
            let names = node.segments.iter().map(|name| name.ident.to_string());
            self.module.paths.push(names.collect());
        }
        visit::visit_path(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        self.visit_path(&node.path);
        self.read_tokens(TokenBuffer::new2(node.tokens.clone()).begin());
    }
}

fn path_of(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(meta) = &attribute.meta else {
        return None;
    };
    match &meta.value {
        Expr::Lit(value) if meta.path.is_ident("path") => match &value.lit {
            Lit::Str(path) => Some(path.value()),
            _ => None,
        },
        _ => None,
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let condition = |attribute: &Attribute| attribute.parse_args::<Meta>().ok();
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .filter_map(condition)
        .any(|condition| needs_test(&condition))
}

/// Whether a condition of `cfg` does not hold without `test`.
fn needs_test(condition: &Meta) -> bool {
    let parts = |list: &MetaList| {
        let parts = Punctuated::<Meta, Token![,]>::parse_terminated;
        list.parse_args_with(parts).unwrap()
    };
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(needs_test),
        Meta::List(list) if list.path.is_ident("any") => parts(list).iter().all(needs_test),
        _ => false,
    }
}
