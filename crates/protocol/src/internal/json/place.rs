//! [`Place`]: the path to an offset of a JSON text, in a readable form.

use std::fmt;

use super::cut;

/// The most steps to show.
const SHOWN_STEPS: usize = 12;

/// The longest name that is shown whole, in characters.
const SHOWN_NAME: usize = 40;

/// The path to a value of a JSON text, such as `messages[3].attributes.who`.
#[derive(Debug)]
pub(super) struct Place(String);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "The request" } else { &self.0 })
    }
}

/// One step into a value.
#[derive(Debug)]
enum Step<'a> {
    /// To a member of an object, with its name as written, once it is read.
    Member(Option<&'a [u8]>),
    /// To an item of an array.
    Item(usize),
}

/// A path under construction.
#[derive(Debug, Default)]
struct Way<'a> {
    steps: Vec<Step<'a>>,
    /// The number of steps that are too deep to be kept.
    deeper: usize,
}

/// The path to an offset: to the innermost value around it, or to the value whose name starts there. The text before it
/// is valid JSON.
pub(super) fn place(text: &[u8], offset: usize) -> Place {
    let mut way = Way::default();
    let mut at = 0;
    while let Some(byte) = text.get(at).filter(|_| at <= offset) {
        match byte {
            b'"' => {
                let Some(end) = string_end(text, at) else { break };
                way.string(text.get(at + 1..end).unwrap_or_default());
                at = end;
            }
            _ if at == offset => break,
            b'{' => way.open(Step::Member(None)),
            b'[' => way.open(Step::Item(0)),
            b'}' | b']' => way.close(),
            b',' => way.next(),
            _ => {}
        }
        at += 1;
    }
    Place(way.to_string())
}

impl<'a> Way<'a> {
    fn innermost(&mut self) -> Option<&mut Step<'a>> {
        if self.deeper == 0 { self.steps.last_mut() } else { None }
    }

    fn open(&mut self, step: Step<'a>) {
        if self.steps.len() < SHOWN_STEPS {
            self.steps.push(step);
        } else {
            self.deeper += 1;
        }
    }

    fn close(&mut self) {
        match self.deeper {
            0 => drop(self.steps.pop()),
            _ => self.deeper -= 1,
        }
    }

    fn next(&mut self) {
        match self.innermost() {
            Some(Step::Item(index)) => *index += 1,
            Some(Step::Member(name)) => *name = None,
            None => {}
        }
    }

    /// A string is the name of a member if the name is not known yet.
    fn string(&mut self, text: &'a [u8]) {
        if let Some(Step::Member(name @ None)) = self.innermost() {
            *name = Some(text);
        }
    }
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            match step {
                Step::Item(index) => write!(f, "[{index}]")?,
                Step::Member(Some(name)) if is_word(name) => {
                    write!(f, "{}{}", if at == 0 { "" } else { "." }, cut(name, SHOWN_NAME))?;
                }
                Step::Member(Some(name)) => write!(f, "[\"{}\"]", cut(name, SHOWN_NAME))?,
                Step::Member(None) => {}
            }
        }
        f.write_str(if self.deeper > 0 { "…" } else { "" })
    }
}

/// Returns whether a name needs no quotes.
fn is_word(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
}

/// The end of the string that starts there: its closing quote.
fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
