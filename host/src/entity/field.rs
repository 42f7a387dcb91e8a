//! The fields of declarations: their types, their checks and their references.

use serde_json::Value;

use super::entity_check::EntityCheck;
use super::reference::{OnDelete, ReferenceBy, ReferenceTarget};
use super::{Kind, Row, check};

/// A field, or an element of an array, a set or a map.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name; empty for an element.
    pub name: &'static str,
    /// The type of the value.
    pub shape: Shape,
    /// Whether the declaration refuses null; [`Field::refuses_null`] has the whole rule.
    pub required: bool,
    /// The value if the request does not name the field.
    pub default: Preset,
    /// Checks of the value.
    pub checks: &'static [Check],
    /// The form in which values are compared, if a value can be spelled in several ways; the
    /// function returns none for a value without such a form.
    pub compared_as: Option<fn(&str) -> Option<String>>,
    /// The form in which values are stored, if that is another one; the function returns none for a
    /// value that is stored as it is.
    pub stored_as: Option<fn(&str) -> Option<String>>,
    /// The entity referred to, if the field refers to rows of another entity. For an array or a
    /// set, its element has the reference.
    pub reference: Option<ReferenceTarget>,
    /// Whether a row shows the field only if it differs from its default, because clients of Kong
    /// 3.9 do not know it.
    pub extension: bool,
    /// Whether rows do not have the field: what a request gives for it is written to other rows.
    pub transient: bool,
    /// Whether the value is a secret: left out of error messages, of the log and of exports without
    /// secrets; `encrypted` in `/schemas`.
    pub secret: bool,
    /// Whether the field may hold a reference to a value in a vault, such as `{vault://env/key}`.
    pub referenceable: bool,
    /// Whether a text may be empty.
    pub may_be_empty: bool,
    /// Whether null stands for the defaults of a record.
    pub null_means_defaults: bool,
    /// Whether a record that a request does not name is null, instead of the defaults of its
    /// fields.
    pub null_by_default: bool,
    /// Rules across the fields of a record.
    pub entity_checks: &'static [EntityCheck],
    /// Earlier names for fields inside a record.
    pub shorthands: &'static [Shorthand],
    /// Why the field should not be used any more, if that is so.
    pub deprecation: Option<Deprecation>,
}

/// An earlier name for a field inside a record.
#[derive(Debug, Clone, Copy)]
pub struct Shorthand {
    /// The earlier name, and the type of its value.
    pub field: Field,
    /// The field that it stands for, by the names from the record inwards.
    pub path: &'static [&'static str],
    /// What to use in its place.
    pub message: &'static str,
    /// Whether answers show it as well, and the schema names the field that it stands for.
    pub is_echoed: bool,
}

/// Why a field should not be used any more. It still works.
#[derive(Debug, Clone, Copy)]
pub struct Deprecation {
    /// What to use in its place.
    pub message: &'static str,
    /// The default that it had, for clients that still send it.
    pub old_default: Option<i64>,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Text, not empty.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A UUID as text.
    Uuid,
    /// Values in order.
    Array(&'static Field),
    /// Values without order, each once.
    Set(&'static Field),
    /// Values by name.
    Map {
        /// Checks of the names.
        names: &'static [Check],
        /// The field that each value must conform to.
        values: &'static Field,
    },
    /// A record with these fields.
    Record(&'static [Field]),
    /// A row of another entity, as `{"id": …}`.
    Reference(Kind),
    /// Any JSON.
    Any,
    /// An object of any JSON, whose fields only a component knows: a PATCH merges it as Kong merges
    /// records, and a field that is null in a PATCH returns to its default.
    Settings,
    /// The primary key.
    Id,
    /// A time that is set when the row is created, or that a request may give.
    CreatedAt,
    /// A time that is set with every change.
    UpdatedAt,
    /// How long the row exists: see `expiry.rs`.
    TimeToLive,
}

/// The default of a field.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Preset {
    Null,
    String(&'static str),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Strings(&'static [&'static str]),
    Integers(&'static [i64]),
    /// A text that is generated each time, such as the key of a credential.
    Generated(fn() -> String),
    /// A value that is not a constant, such as a list of records. It is the same each time.
    Computed(fn() -> Value),
}

/// A check of a value.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    /// A number between these, both included.
    Between(i64, i64),
    /// As above, with bounds that are not whole.
    BetweenNumbers(f64, f64),
    /// A number greater than this one.
    GreaterThan(i64),
    /// None of these.
    NotOneOf(&'static [&'static str]),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// One of these numbers.
    OneOfIntegers(&'static [i64]),
    /// At least this many elements of a list, or values of a map.
    AtLeast(usize),
    /// A set with elements of only one of these subsets.
    ExclusiveSubsets(&'static [&'static [&'static str]]),
    /// A check of a text by a function.
    Text(fn(&str) -> Result<(), String>),
    /// A text of a pattern that clients are told.
    Matches(&'static TextPattern),
    /// A regular expression.
    Regex,
    /// A check of a list by a function.
    List(fn(&[Value]) -> Result<(), String>),
    /// A check of a record by a function, if none of its fields is wrong by itself. The message is
    /// about the record as a whole.
    Record(fn(&Row) -> Result<(), String>),
    /// Only null; the text is the reason.
    Nothing(&'static str),
}

/// The pattern of a text.
#[derive(Debug)]
pub struct TextPattern {
    /// The pattern as clients of Kong are told it, in the syntax of Lua.
    pub lua: &'static str,
    /// Whether a text has the pattern.
    pub holds: fn(&str) -> bool,
    /// The message for any other text, if it has one of its own.
    pub message: Option<&'static str>,
}

impl Field {
    const fn new(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            required: false,
            default: Preset::Null,
            checks: &[],
            compared_as: None,
            stored_as: None,
            reference: None,
            extension: false,
            transient: false,
            secret: false,
            referenceable: false,
            may_be_empty: false,
            null_means_defaults: false,
            null_by_default: false,
            entity_checks: &[],
            shorthands: &[],
            deprecation: None,
        }
    }

    /// The primary key, a UUID.
    pub const fn id() -> Self {
        Self::new("id", Shape::Id)
    }

    /// When the row was created.
    pub const fn created_at() -> Self {
        Self::new("created_at", Shape::CreatedAt)
    }

    /// When the row was last changed.
    pub const fn updated_at() -> Self {
        Self::new("updated_at", Shape::UpdatedAt)
    }

    /// How many seconds the row exists; for ever if null.
    pub const fn ttl() -> Self {
        Self::new("ttl", Shape::TimeToLive)
    }

    /// Tags to find rows by.
    pub const fn tags() -> Self {
        const TAG: Field = Field::element(Shape::String).check(&[Check::Text(check::tag)]);
        Self::new("tags", Shape::Set(&TAG))
    }

    /// Text.
    pub const fn string(name: &'static str) -> Self {
        Self::new(name, Shape::String)
    }

    /// A UUID that refers to nothing.
    pub const fn uuid(name: &'static str) -> Self {
        Self::new(name, Shape::Uuid)
    }

    /// A whole number.
    pub const fn integer(name: &'static str) -> Self {
        Self::new(name, Shape::Integer)
    }

    /// Any number.
    pub const fn number(name: &'static str) -> Self {
        Self::new(name, Shape::Number)
    }

    /// True or false.
    pub const fn boolean(name: &'static str) -> Self {
        Self::new(name, Shape::Boolean)
    }

    /// Any JSON.
    pub const fn any(name: &'static str) -> Self {
        Self::new(name, Shape::Any)
    }

    /// Settings of a component.
    pub const fn settings(name: &'static str) -> Self {
        Self::new(name, Shape::Settings)
    }

    /// Values in order.
    pub const fn array(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Shape::Array(element))
    }

    /// Values without order.
    pub const fn set(name: &'static str, element: &'static Field) -> Self {
        Self::new(name, Shape::Set(element))
    }

    /// Values by name.
    pub const fn map(name: &'static str, names: &'static [Check], values: &'static Field) -> Self {
        Self::new(name, Shape::Map { names, values })
    }

    /// A record for which null stands for its defaults.
    pub const fn optional_record(name: &'static str, fields: &'static [Field]) -> Self {
        Self {
            null_means_defaults: true,
            ..Self::record(name, fields)
        }
    }

    /// A record with these fields. A request that does not name it gets all their defaults.
    pub const fn record(name: &'static str, fields: &'static [Field]) -> Self {
        Self::new(name, Shape::Record(fields))
    }

    /// A row of another entity. That row cannot be deleted while it is referred to.
    pub const fn reference(name: &'static str, to: Kind) -> Self {
        Self::new(name, Shape::Reference(to)).refers_to(to, ReferenceBy::Id)
    }

    /// An element of an array, a set or a map.
    pub const fn element(shape: Shape) -> Self {
        Self::new("", shape)
    }

    /// Makes the value, or each element that this is declared for, a reference to a row of another
    /// entity. That row cannot be deleted while it is referred to.
    pub const fn refers_to(mut self, to: Kind, by: ReferenceBy) -> Self {
        self.reference = Some(ReferenceTarget {
            to,
            by,
            on_delete: OnDelete::Restrict,
            has_endpoint: matches!(by, ReferenceBy::Id),
        });
        self
    }

    /// Sets what deleting the row referred to does to the row with this field.
    pub const fn on_delete(mut self, on_delete: OnDelete) -> Self {
        if let Some(target) = &mut self.reference {
            target.on_delete = on_delete;
        }
        self
    }

    /// Leaves out the path to the row referred to below the row with this field.
    pub const fn without_endpoint(mut self) -> Self {
        if let Some(target) = &mut self.reference {
            target.has_endpoint = false;
        }
        self
    }

    /// Refuses null.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Whether null is refused: by what is required, and by a record, which has defaults of its
    /// own, unless its declaration gives null a meaning.
    pub(super) const fn refuses_null(&self) -> bool {
        let takes_null = self.null_means_defaults || self.null_by_default || self.extension;
        self.required || matches!(self.shape, Shape::Record(_)) && !takes_null
    }

    /// Sets the value if a request does not name the field.
    pub const fn default(mut self, default: Preset) -> Self {
        self.default = default;
        self
    }

    /// Not a field of Kong 3.9: shown only if it differs from its default.
    pub const fn extension(mut self) -> Self {
        self.extension = true;
        self
    }

    /// Leaves the field out of rows: see [`Field::transient`].
    pub const fn transient(mut self) -> Self {
        self.transient = true;
        self
    }

    /// Marks the value as a secret: see [`Field::secret`].
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Allows a reference to a value in a vault: see [`Field::referenceable`].
    pub const fn referenceable(mut self) -> Self {
        self.referenceable = true;
        self
    }

    /// Allows an empty text.
    pub const fn may_be_empty(mut self) -> Self {
        self.may_be_empty = true;
        self
    }

    /// Makes the record null if a request does not name it.
    pub const fn null_by_default(mut self) -> Self {
        self.null_by_default = true;
        self
    }

    /// Sets the rules across the fields of a record.
    pub const fn entity_checks(mut self, checks: &'static [EntityCheck]) -> Self {
        self.entity_checks = checks;
        self
    }

    /// Sets the earlier names for fields inside the record.
    pub const fn shorthands(mut self, shorthands: &'static [Shorthand]) -> Self {
        self.shorthands = shorthands;
        self
    }

    /// Marks the field as one that should not be used any more.
    pub const fn deprecated(mut self, deprecation: Deprecation) -> Self {
        self.deprecation = Some(deprecation);
        self
    }

    /// Sets the form in which values are compared.
    pub const fn compared_as(mut self, form: fn(&str) -> Option<String>) -> Self {
        self.compared_as = Some(form);
        self
    }

    /// Sets the form in which values are stored.
    pub const fn stored_as(mut self, form: fn(&str) -> Option<String>) -> Self {
        self.stored_as = Some(form);
        self
    }

    /// Sets the checks of the value.
    pub const fn check(mut self, checks: &'static [Check]) -> Self {
        self.checks = checks;
        self
    }

    /// Whether a value of the field is a reference to a value in a vault. The value itself cannot
    /// be checked then. Source: Kong.
    pub(super) fn is_in_vault(&self, value: &Value) -> bool {
        let is_reference = |text: &str| text.starts_with("{vault://") && text.ends_with('}');
        self.referenceable && value.as_str().is_some_and(is_reference)
    }

    /// The default as JSON; for a record, the defaults of its fields, and in place of some of them
    /// its own.
    pub(crate) fn preset(&self) -> Value {
        match (&self.shape, self.default) {
            (Shape::Record(_), _) if self.null_by_default => Value::Null,
            (Shape::Record(fields), default) => {
                let fields = fields.iter();
                let presets = fields.map(|field| (field.name.to_owned(), field.preset()));
                let mut row: Row = presets.collect();
                if let Preset::Computed(compute) = default
                    && let Value::Object(own) = compute()
                {
                    row.extend(own);
                }
                row.into()
            }
            (_, Preset::Null) => Value::Null,
            (_, Preset::String(text)) => text.into(),
            (_, Preset::Integer(number)) => number.into(),
            (_, Preset::Number(number)) => number.into(),
            (_, Preset::Boolean(value)) => value.into(),
            (_, Preset::Strings(texts)) => texts.into(),
            (_, Preset::Integers(numbers)) => numbers.into(),
            (_, Preset::Generated(generate)) => generate().into(),
            (_, Preset::Computed(compute)) => compute(),
        }
    }
}

/// The field at a name, which may be inside records.
pub(super) fn field_at<'f>(fields: &'f [Field], name: &str) -> Option<&'f Field> {
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let field = fields.iter().find(|field| field.name == first)?;
    match (rest, &field.shape) {
        (None, _) => Some(field),
        (Some(rest), Shape::Record(fields)) => field_at(fields, rest),
        (Some(_), _) => None,
    }
}
