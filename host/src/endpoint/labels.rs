//! Labels of an endpoint: what operators say about it that balancers may ask for, such as its zone.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The labels of a target, shared by all of its endpoints. Most targets have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(Option<Arc<BTreeMap<String, String>>>);

impl Labels {
    /// The labels of a target with these tags. A tag such as `zone:a` is the label `zone` with the
    /// value `a`, and a tag without a colon is a label without a value; of tags with the same key
    /// the first one counts. Labels in `own` take precedence over tags.
    pub fn new<'a>(
        tags: impl IntoIterator<Item = &'a str>,
        own: &BTreeMap<String, String>,
    ) -> Self {
        let mut labels = own.clone();
        for tag in tags {
            let (key, value) = tag.split_once(':').unwrap_or((tag, ""));
            if !key.is_empty() && !labels.contains_key(key) {
                labels.insert(key.into(), value.into());
            }
        }
        Self((!labels.is_empty()).then(|| Arc::new(labels)))
    }

    /// All of them, by key.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.0.iter().flat_map(|labels| labels.iter());
        labels.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a label; none if there is no label with this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.as_ref()?.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_labels_unless_a_label_of_that_key_is_set() {
        let own = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
        let tags = ["zone:a", "canary", "url:http://x", ":nothing", "url:second"];
        let labels = Labels::new(tags, &own);
        assert_eq!(labels.get("zone"), Some("b"));
        assert_eq!(labels.get("canary"), Some(""));
        assert_eq!(labels.get("url"), Some("http://x"));
        assert_eq!((labels.get(""), labels.get("other")), (None, None));
        let all: Vec<_> = labels.all().collect();
        assert_eq!(all, [("canary", ""), ("url", "http://x"), ("zone", "b")]);
        let none = Labels::new([], &BTreeMap::new());
        assert_eq!(none, Labels::default());
        assert_ne!(none, Labels::new(["zone:a"], &BTreeMap::new()));
    }
}
