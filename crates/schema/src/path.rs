//! Where in an object a check is: a chain of borrowed steps, printed only when something is wrong, so that
//! a walk over a correct object allocates nothing for it.

use std::fmt;

/// One step from the root. Prints as upstream's `field.Path`: `spec.containers[0].name`,
/// `metadata.labels[a/b]`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path<'a> {
    /// The object itself; prints as nothing.
    Root,
    /// A field of a struct.
    Field(&'a Path<'a>, &'a str),
    /// A key of a map.
    Key(&'a Path<'a>, &'a str),
    /// An item of a list.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The form of upstream's strict decoder, which joins map keys with a dot as well.
    pub(crate) fn dotted(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, true);
        out
    }

    fn write(&self, out: &mut String, dots: bool) {
        let joined = |out: &mut String, name: &str| {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(name);
        };
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(out, dots);
                joined(out, name);
            }
            Self::Key(parent, key) => {
                parent.write(out, dots);
                if dots {
                    joined(out, key);
                } else {
                    out.push('[');
                    out.push_str(key);
                    out.push(']');
                }
            }
            Self::Index(parent, at) => {
                parent.write(out, dots);
                out.push('[');
                out.push_str(&at.to_string());
                out.push(']');
            }
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out, false);
        f.write_str(&out)
    }
}
