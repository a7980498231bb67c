//! What a plan came to, and lists of what has to be changed.

/// What a plan came to: reason and message of the `Ready` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) ready: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn ready(message: impl Into<String>) -> Self {
        Self { ready: true, reason: "Ready", message: message.into() }
    }

    pub(crate) fn not(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: false, reason, message: message.into() }
    }

    /// The spec is at fault: it says what to change.
    pub(crate) fn invalid(wrong: &[String]) -> Self {
        Self::not("InvalidSpec", wrong.join("; "))
    }

    /// Whether somebody has to do something, and not only wait.
    pub(crate) fn is_fault(&self) -> bool {
        !self.ready
            && !["Progressing", "Stopped", "WaitingForStorage", "Draining", "Resharding"]
                .contains(&self.reason)
    }
}

/// What has to be changed, each a sentence that begins with the field.
#[derive(Debug, Default)]
pub(crate) struct Wrong(pub(crate) Vec<String>);

impl Wrong {
    pub(crate) fn add(&mut self, field: &str, what: impl AsRef<str>) {
        self.0.push(format!("{field}: {}", what.as_ref()));
    }

    pub(crate) fn verdict(&self) -> Option<Verdict> {
        (!self.0.is_empty()).then(|| Verdict::invalid(&self.0))
    }

    /// A positive amount of bytes.
    pub(crate) fn bytes(&mut self, field: &str, text: Option<&str>, otherwise: i64) -> i64 {
        let Some(text) = text else { return otherwise };
        match text.parse::<meta::Quantity>() {
            Ok(quantity) if quantity.value() > 0 => quantity.value(),
            Ok(_) => {
                self.add(field, format!("{text:?} must be greater than zero"));
                otherwise
            }
            Err(_) => {
                self.add(field, format!("{text:?} is not a quantity, such as 256Mi or 10Gi"));
                otherwise
            }
        }
    }

    /// A number from `least` to `most`.
    pub(crate) fn range<T>(&mut self, field: &str, given: Option<T>, otherwise: T, least: T, most: T) -> T
    where
        T: PartialOrd + std::fmt::Display + Copy,
    {
        let value = given.unwrap_or(otherwise);
        if value < least || value > most {
            self.add(field, format!("must be from {least} to {most}, is {value}"));
            return otherwise;
        }
        value
    }
}
