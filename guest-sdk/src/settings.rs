//! Settings of a balancer, declared once: what operators may set, what each setting is for, and its
//! default. [`settings!`](crate::settings!) makes the type and the JSON Schema of it, when the
//! balancer is compiled.

/// A type that a setting can have.
pub trait Setting: Sized {
    /// How a default is written.
    type Literal;

    /// The keywords of its schema.
    #[doc(hidden)]
    const PARTS: &'static [Part];

    /// Whether a setting without a default may be left out.
    const IS_OPTIONAL: bool = false;

    /// The setting that has no default and is left out; none if it must not be.
    fn absent() -> Option<Self> {
        None
    }

    /// Whether a default is text.
    const IS_TEXT: bool = false;

    /// The setting of a default.
    fn of(literal: Self::Literal) -> Self;
}

macro_rules! setting {
    ($name:literal: $($of:ty),*) => {
        $(impl Setting for $of {
            type Literal = Self;
            const PARTS: &'static [Part] = &[Part::Json(concat!("\"type\":\"", $name, "\""))];

            fn of(literal: Self) -> Self {
                literal
            }
        })*
    };
}

setting!("integer": u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
setting!("number": f32, f64);
setting!("boolean": bool);

impl Setting for String {
    type Literal = &'static str;
    const PARTS: &'static [Part] = &[Part::Json("\"type\":\"string\"")];
    const IS_TEXT: bool = true;

    fn of(literal: &'static str) -> Self {
        literal.into()
    }
}

impl<T: Setting> Setting for Option<T> {
    type Literal = T::Literal;
    const PARTS: &'static [Part] = T::PARTS;
    const IS_OPTIONAL: bool = true;
    const IS_TEXT: bool = T::IS_TEXT;

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn of(literal: T::Literal) -> Self {
        Some(T::of(literal))
    }
}

impl<T: Setting> Setting for Vec<T> {
    /// A list has no default but the empty one.
    type Literal = std::convert::Infallible;
    const PARTS: &'static [Part] = &[
        Part::Json("\"type\":\"array\",\"items\":{"),
        Part::Parts(T::PARTS),
        Part::Json("}"),
    ];
    const IS_OPTIONAL: bool = true;

    fn absent() -> Option<Self> {
        Some(Vec::new())
    }

    fn of(literal: Self::Literal) -> Self {
        match literal {}
    }
}

/// Declares the settings of a balancer: a type that is read from the JSON of the settings, and its
/// JSON Schema. The crate needs `serde`, with its derive macros, and `serde_json`.
///
/// Each setting has a doc comment, which operators are shown, a type, and as needed a default and
/// keywords of [JSON Schema](https://json-schema.org/understanding-json-schema/reference). Types
/// are integers, floats, `bool`, `String`, `Vec` and `Option` of these, and types that this macro
/// has declared. A setting that is an `Option` or a `Vec` may be left out, and so may one with a
/// default; any other one is required. `Options::read` reads settings, and `Options::SCHEMA` is the
/// schema.
///
/// ```ignore
/// guest_sdk::settings! {
///     /// What operators may set.
///     struct Options {
///         /// Endpoints to choose from at a time
///         choices: usize = 2, "minimum": 2, "maximum": 64;
///         /// A header that names the endpoint
///         header: Option<String>, "minLength": 1;
///     }
/// }
///
/// impl Balancer for Mine {
///     const CONFIG_SCHEMA: &'static str = Options::SCHEMA;
///
///     fn configure(&mut self, config: &str) -> Result<(), String> {
///         self.options = Options::read(config)?;
///         Ok(())
///     }
///     // …
/// }
/// ```
///
/// `struct Options { … } with zones` has the settings `prefer` and `spill_at` as well, for
/// [`Zones::configure`](crate::Zones::configure).
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $visible:vis struct $name:ident { $($fields:tt)* } with zones) => {
        $crate::settings! {
            $(#[$meta])*
            $visible struct $name {
                $($fields)*
                /// A label such as zone:a: its endpoints get all requests while there are any,
                /// unless there is a spill_at
                prefer: Option<String>;
                /// At this many requests in flight (scaled to the mean weight) at the preferred
                /// endpoint, a request goes to a less busy endpoint without the label
                spill_at: Option<f64>, "exclusiveMinimum": 0;
            }
        }
    };
    ($(#[$meta:meta])* $visible:vis struct $name:ident {
        $($(#[doc = $about:literal])* $field:ident: $of:ty $(= $preset:literal)? $(, $keyword:literal: $value:expr)*;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug)]
        $visible struct $name {
            $($(#[doc = $about])* $field: $of,)*
        }

        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::__setting!(default $of $(, $preset)?),)*
                }
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                #[derive(::serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Given {
                    $($field: ::std::option::Option<$of>,)*
                }
                let given = <Given as ::serde::Deserialize>::deserialize(deserializer)?;
                ::std::result::Result::Ok(Self {
                    $($field: match given.$field {
                        ::std::option::Option::Some(given) => given,
                        ::std::option::Option::None => {
                            let absent: ::std::option::Option<$of> =
                                $crate::__setting!(absent $of $(, $preset)?);
                            absent.ok_or_else(|| {
                                <D::Error as ::serde::de::Error>::missing_field(
                                    ::std::stringify!($field),
                                )
                            })?
                        }
                    },)*
                })
            }
        }

        impl $crate::settings::Setting for $name {
            type Literal = ::std::convert::Infallible;
            const PARTS: &'static [$crate::settings::Part] = &[
                $crate::settings::Part::Json("\"type\":\"object\",\"properties\":{"),
                $(
                    $crate::settings::Part::Next,
                    $crate::settings::Part::Name(::std::stringify!($field)),
                    $crate::settings::Part::Json(":{"),
                    $crate::settings::Part::Parts(<$of as $crate::settings::Setting>::PARTS),
                    $(
                        $crate::settings::Part::Json(::std::concat!(",", ::std::stringify!($keyword), ":")),
                        $crate::settings::Part::Value(::std::stringify!($value)),
                    )*
                    $($crate::settings::Part::Preset {
                        text: ::std::concat!($preset),
                        is_quoted: <$of as $crate::settings::Setting>::IS_TEXT,
                    },)?
                    $crate::settings::Part::About(&[$($about),*]),
                    $crate::settings::Part::Json("}"),
                )*
                $crate::settings::Part::Json("},\"required\":["),
                $($crate::settings::Part::Required {
                    name: ::std::stringify!($field),
                    is: !(<$of as $crate::settings::Setting>::IS_OPTIONAL
                        $(|| !::std::stringify!($preset).is_empty())?),
                },)*
                $crate::settings::Part::Json("],\"additionalProperties\":false"),
            ];

            fn of(literal: Self::Literal) -> Self {
                match literal {}
            }
        }

        #[allow(dead_code, reason = "what is a part of other settings needs none of this")]
        impl $name {
            /// The JSON Schema of the settings.
            $visible const SCHEMA: &'static str = {
                const SCHEMA: &[$crate::settings::Part] = &[
                    $crate::settings::Part::Json("{"),
                    $crate::settings::Part::Parts(<$name as $crate::settings::Setting>::PARTS),
                    $crate::settings::Part::Json("}"),
                ];
                const BYTES: [u8; $crate::settings::length(SCHEMA)] = $crate::settings::bytes(SCHEMA);
                $crate::settings::text(&BYTES)
            };

            /// Reads settings. An error is a sentence for the operator.
            $visible fn read(config: &str) -> ::std::result::Result<Self, ::std::string::String> {
                ::serde_json::from_str(config)
                    .map_err(|error| ::std::string::ToString::to_string(&error))
            }
        }
    };
}

/// What a setting is that is left out.
#[doc(hidden)]
#[macro_export]
macro_rules! __setting {
    (default $of:ty) => {
        ::std::default::Default::default()
    };
    (default $of:ty, $preset:literal) => {
        <$of as $crate::settings::Setting>::of($preset)
    };
    (absent $of:ty) => {
        <$of as $crate::settings::Setting>::absent()
    };
    (absent $of:ty, $preset:literal) => {
        ::std::option::Option::Some(<$of as $crate::settings::Setting>::of($preset))
    };
}

/// A part of the text of a schema.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// Text as it is.
    Json(&'static str),
    /// Parts in their order.
    Parts(&'static [Part]),
    /// A comma, unless nothing is before it in its object.
    Next,
    /// The name of a field, with quotes.
    Name(&'static str),
    /// The value of a keyword.
    Value(&'static str),
    /// A default.
    Preset { text: &'static str, is_quoted: bool },
    /// The lines of a doc comment.
    About(&'static [&'static str]),
    /// The name of a field, if it is required.
    Required { name: &'static str, is: bool },
}

/// Writes a text of `N` bytes, or counts them.
struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
    last: u8,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
            last: 0,
        }
    }

    const fn byte(&mut self, byte: u8) {
        if self.length < N {
            self.bytes[self.length] = byte;
        }
        self.length += 1;
        self.last = byte;
    }

    const fn json(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            self.byte(text[at]);
            at += 1;
        }
    }

    /// A text as a JSON string has it, without the quotes. One of source code has no other control
    /// characters than these.
    const fn escaped(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut at = 0;
        while at < text.len() {
            match text[at] {
                b'"' => self.json("\\\""),
                b'\\' => self.json("\\\\"),
                b'\n' => self.json("\\n"),
                b'\t' => self.json("\\t"),
                b'\r' => self.json("\\r"),
                byte => self.byte(byte),
            }
            at += 1;
        }
    }

    const fn name(&mut self, name: &str) {
        let bytes = name.as_bytes();
        self.byte(b'"');
        // An identifier that is a keyword of Rust.
        let is_raw = bytes.len() > 2 && bytes[0] == b'r' && bytes[1] == b'#';
        let name = if is_raw { name.split_at(2).1 } else { name };
        self.escaped(name);
        self.byte(b'"');
    }

    /// A value in the syntax of Rust: as that of JSON, but numbers may have underscores.
    const fn value(&mut self, value: &str) {
        let value = value.as_bytes();
        let mut is_text = false;
        let mut at = 0;
        while at < value.len() {
            let is_escaped = at > 0 && value[at - 1] == b'\\';
            if value[at] == b'"' && !(is_text && is_escaped) {
                is_text = !is_text;
            }
            if is_text || value[at] != b'_' {
                self.byte(value[at]);
            }
            at += 1;
        }
    }

    const fn next(&mut self) {
        if !matches!(self.last, b'{' | b'[') {
            self.byte(b',');
        }
    }

    const fn about(&mut self, lines: &[&str]) {
        if lines.is_empty() {
            return;
        }
        self.json(",\"description\":\"");
        let mut at = 0;
        while at < lines.len() {
            if at > 0 {
                self.byte(b' ');
            }
            self.escaped(lines[at].trim_ascii());
            at += 1;
        }
        self.byte(b'"');
    }

    const fn parts(&mut self, parts: &[Part]) {
        let mut at = 0;
        while at < parts.len() {
            match parts[at] {
                Part::Json(text) => self.json(text),
                Part::Parts(parts) => self.parts(parts),
                Part::Next => self.next(),
                Part::Name(name) => self.name(name),
                Part::Value(value) => self.value(value),
                Part::Preset { text, is_quoted } => {
                    self.json(",\"default\":");
                    if is_quoted {
                        self.byte(b'"');
                        self.escaped(text);
                        self.byte(b'"');
                    } else {
                        self.json(text);
                    }
                }
                Part::About(lines) => self.about(lines),
                Part::Required { name, is } => {
                    if is {
                        self.next();
                        self.name(name);
                    }
                }
            }
            at += 1;
        }
    }
}

#[doc(hidden)]
pub const fn length(parts: &[Part]) -> usize {
    let mut writer = Writer::<0>::new();
    writer.parts(parts);
    writer.length
}

#[doc(hidden)]
pub const fn bytes<const N: usize>(parts: &[Part]) -> [u8; N] {
    let mut writer = Writer::<N>::new();
    writer.parts(parts);
    writer.bytes
}

#[doc(hidden)]
pub const fn text(bytes: &'static [u8]) -> &'static str {
    match str::from_utf8(bytes) {
        Ok(text) => text,
        // All of it came from texts, and was not split within a character.
        Err(_) => panic!("the schema is not UTF-8"),
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
