//! Acts as decK does, Kong's tool for configurations as files: reads a gateway, and makes the
//! changes that a file asks for, by the same calls in the same order. Source: decK 1.5x and
//! go-database-reconciler: what they call, what they leave out, and what they compare.

mod collections;
mod defaults;

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Gateway, Reply};
use collections::{COLLECTIONS, Collection, compared, id_of, is_same, name_of, referred, sent};
use defaults::{fields, fill_config, fill_defaults};

type Row = Map<String, Value>;

/// Entities of a gateway by their collections and ids.
type Rows = BTreeMap<&'static str, BTreeMap<String, Row>>;

/// Requests that are sent at a time.
const PARALLEL: usize = 10;

/// What a file has: entities without ids, as far as they have names, that refer to each other by
/// names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct File(pub(crate) Vec<(&'static str, Row)>);

impl File {
    /// The only entity of a collection whose field has this value.
    #[track_caller]
    pub(crate) fn find(&mut self, collection: &str, field: &str, value: &str) -> &mut Row {
        let mut found = self.0.iter_mut();
        let found = found.find(|(name, row)| {
            *name == collection && row.get(field).is_some_and(|own| own == value)
        });
        &mut found.unwrap().1
    }

    /// Gives an entity another name, and whatever refers to it.
    pub(crate) fn rename(&mut self, collection: &str, field: &str, from: &str, to: &str) {
        self.find(collection, field, from)
            .insert(field.to_owned(), to.into());
        for (_, row) in &mut self.0 {
            for (field, value) in row.iter_mut() {
                if referred(field) == Some(collection) && value == from {
                    *value = to.into();
                }
            }
        }
    }
}

/// What was changed, as lines such as `create services a`.
pub(crate) type Changes = Vec<String>;

/// decK with its arguments.
pub(crate) struct Deck<'a> {
    gateway: &'a Gateway,
    select_tags: Vec<String>,
    with_ids: bool,
}

/// A change that is to be made.
struct Change {
    kind: &'static str,
    collection: &'static Collection,
    row: Row,
}

impl<'a> Deck<'a> {
    pub(crate) fn of(gateway: &'a Gateway) -> Self {
        Self {
            gateway,
            select_tags: Vec::new(),
            with_ids: false,
        }
    }

    /// `--select-tag`: only entities with all of these tags are read and written.
    pub(crate) fn selecting(mut self, tags: &[&str]) -> Self {
        self.select_tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        self
    }

    /// `--with-id`: the file has all ids.
    pub(crate) fn with_ids(mut self) -> Self {
        self.with_ids = true;
        self
    }

    fn get(&self, path: &str) -> Reply {
        self.gateway.admin("GET", path, &[])
    }

    /// All pages of a list.
    fn list(&self, path: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut offset: Option<String> = None;
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("size", "1000");
            if !self.select_tags.is_empty() {
                query.append_pair("tags", &self.select_tags.join(","));
            }
            if let Some(offset) = offset.as_deref() {
                query.append_pair("offset", offset);
            }
            let page = self.get(&format!("{path}?{}", query.finish()));
            let page = page.expect(200).json();
            let data = page["data"].as_array().unwrap().iter();
            rows.extend(data.map(|row| row.as_object().unwrap().clone()));
            match page.get("offset") {
                Some(next) => offset = Some(next.as_str().unwrap().to_owned()),
                None => return rows,
            }
        }
    }

    /// What the gateway has, as decK's types hold it.
    fn read(&self) -> Rows {
        let root = self.get("/").expect(200).json();
        assert!(root["version"].is_string(), "{root}");
        let mut rows = Rows::new();
        for collection in &COLLECTIONS {
            let listed = match collection.below {
                Some(("upstream", nested)) => {
                    let upstreams = rows["upstreams"].keys();
                    let lists = upstreams.map(|id| self.list(&format!("/upstreams/{id}/{nested}")));
                    lists.flatten().collect()
                }
                _ => self.list(collection.path),
            };
            let listed = listed.into_iter().map(|mut row| {
                for field in ["created_at", "updated_at", "pointsman"] {
                    row.remove(field);
                }
                if collection.name == "certificates" {
                    row.remove("snis");
                }
                (row["id"].as_str().unwrap().to_owned(), sent(row))
            });
            rows.insert(collection.name, listed.collect());
        }
        rows
    }

    /// `deck gateway dump`.
    pub(crate) fn dump(&self) -> File {
        let rows = self.read();
        let mut file = Vec::new();
        for collection in &COLLECTIONS {
            for row in rows[collection.name].values() {
                let mut row = row.clone();
                let is_named = row.get(collection.key[0]).is_some();
                if is_named && !collection.keeps_id && !self.with_ids {
                    row.remove("id");
                }
                for (field, value) in &mut row {
                    if let (Some(of), Some(id)) = (referred(field), value["id"].as_str()) {
                        *value = name_of(&rows, of, id).into();
                    }
                }
                if let Some(Value::Array(tags)) = row.get_mut("tags") {
                    let selected = |tag: &Value| self.select_tags.iter().any(|own| tag == own);
                    tags.retain(|tag| !selected(tag));
                }
                file.push((collection.name, sent(row)));
            }
        }
        file.sort_by_key(|(name, row)| {
            let position = COLLECTIONS.iter().position(|known| known.name == *name);
            (position, json!(row).to_string())
        });
        File(file)
    }

    /// What the gateway should have by a file: with defaults from its schemas, and with ids.
    fn wanted(&self, file: &File, present: &Rows) -> Rows {
        let mut wanted = Rows::new();
        for collection in &COLLECTIONS {
            let own = file.0.iter().filter(|(name, _)| *name == collection.name);
            let mut rows = BTreeMap::new();
            for (_, row) in own {
                let mut row = row.clone();
                for (field, value) in &mut row {
                    if let (Some(of), Some(name)) = (referred(field), value.as_str()) {
                        let id = id_of(&wanted, of, name).or_else(|| id_of(present, of, name));
                        *value = json!({ "id": id.unwrap_or_else(|| panic!("{of} {name}")) });
                    }
                }
                self.fill(collection, &mut row);
                if !self.select_tags.is_empty() {
                    let tags = row.entry("tags").or_insert_with(|| json!([]));
                    let own = self.select_tags.iter().map(|tag| json!(tag));
                    tags.as_array_mut().unwrap().extend(own);
                }
                let id = match row.get("id") {
                    Some(id) => id.as_str().unwrap().to_owned(),
                    None => {
                        let same = present[collection.name].iter();
                        let mut same = same.filter(|(_, other)| is_same(collection, &row, other));
                        let id = same.next().map(|(id, _)| id.clone());
                        id.unwrap_or_else(|| Uuid::new_v4().to_string())
                    }
                };
                row.insert("id".into(), id.clone().into());
                rows.insert(id, sent(row));
            }
            wanted.insert(collection.name, rows);
        }
        wanted
    }

    /// Fills in what the file leaves out, from the schemas of the gateway.
    fn fill(&self, collection: &Collection, row: &mut Row) {
        let schema = |path: String| self.get(&path).expect(200).json();
        match collection.name {
            "services" | "routes" | "upstreams" | "targets" => {
                let schema = schema(format!("/schemas/{}", collection.name));
                fill_defaults(&schema, row);
            }
            "plugins" => {
                let name = row["name"].as_str().unwrap();
                let schema = schema(format!("/schemas/plugins/{name}"));
                let config = fields(&schema).find(|(name, _)| *name == "config");
                let filled = row.entry("config").or_insert_with(|| json!({}));
                fill_config(config.unwrap().1, filled.as_object_mut().unwrap());
                row.entry("enabled").or_insert(json!(true));
                let protocols = fields(&schema).find(|(name, _)| *name == "protocols");
                let protocols = protocols.unwrap().1["default"].clone();
                row.entry("protocols").or_insert(protocols);
            }
            _ => {}
        }
    }

    /// What `deck gateway diff` prints.
    pub(crate) fn diff(&self, file: &File) -> Changes {
        self.planned(file).iter().map(Change::line).collect()
    }

    fn planned(&self, file: &File) -> Vec<Change> {
        let present = self.read();
        let wanted = self.wanted(file, &present);
        let mut changes = Vec::new();
        for collection in &COLLECTIONS {
            let change = |kind, row: &Row| Change {
                kind,
                collection,
                row: row.clone(),
            };
            let (present, wanted) = (&present[collection.name], &wanted[collection.name]);
            for (id, row) in wanted {
                match present.get(id) {
                    None => changes.push(change("create", row)),
                    Some(old) if compared(collection, old) != compared(collection, row) => {
                        changes.push(change("update", row));
                    }
                    Some(_) => {}
                }
            }
            let gone = present.iter().filter(|(id, _)| !wanted.contains_key(*id));
            changes.extend(gone.map(|(_, row)| change("delete", row)));
        }
        changes
    }

    /// `deck gateway sync`. Returns what it has changed.
    #[track_caller]
    pub(crate) fn sync(&self, file: &File) -> Changes {
        let planned = self.planned(file);
        let is_duplicate = |change: &Change| {
            change.kind == "delete"
                && planned.iter().any(|other| {
                    other.kind == "create"
                        && other.collection.name == change.collection.name
                        && is_same(change.collection, &change.row, &other.row)
                })
        };
        self.make(planned.iter().filter(|change| is_duplicate(change)));
        for level in 1..=4 {
            let of_level =
                |change: &&Change| change.kind != "delete" && change.collection.level == level;
            self.make(planned.iter().filter(of_level));
        }
        for level in (1..=4).rev() {
            let of_level = |change: &&Change| {
                change.kind == "delete" && change.collection.level == level && !is_duplicate(change)
            };
            self.make(planned.iter().filter(of_level));
        }
        planned.iter().map(Change::line).collect()
    }

    /// Makes changes, several at a time. decK stops at the first error.
    #[track_caller]
    fn make<'b>(&self, changes: impl Iterator<Item = &'b Change> + Send) {
        let (changes, failed) = (Mutex::new(changes), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL {
                scope.spawn(|| {
                    loop {
                        let next = changes.lock().unwrap().next();
                        let Some(change) = next else { return };
                        if let Err(why) = self.make_one(change) {
                            failed.lock().unwrap().push(why);
                            return;
                        }
                    }
                });
            }
        });
        assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new());
    }

    fn make_one(&self, change: &Change) -> Result<(), String> {
        let (row, collection) = (&change.row, change.collection);
        let path = match collection.below {
            Some((field, nested)) => {
                let parent = row[field]["id"].as_str().unwrap();
                let parents = referred(field).unwrap();
                format!("/{parents}/{parent}/{nested}")
            }
            None => collection.path.to_owned(),
        };
        let item = format!("{path}/{}", row["id"].as_str().unwrap());
        let body = Value::from(row.clone());
        let mut reply = match change.kind {
            "delete" => self.gateway.admin("DELETE", &item, &[]),
            _ => self.gateway.admin_json("PUT", &item, &body),
        };
        if reply.status == 404 && collection.name == "targets" && change.kind != "delete" {
            reply = self.gateway.admin_json("POST", &path, &body);
        }
        match reply.status {
            200..=399 => Ok(()),
            status => Err(format!("{}: {status} {}", change.line(), reply.text())),
        }
    }

    /// `deck gateway validate`: each entity of a file against the schemas of the gateway.
    #[track_caller]
    pub(crate) fn validate(&self, file: &File) {
        let wanted = self.wanted(file, &self.read());
        for (collection, rows) in wanted {
            for row in rows.into_values() {
                let path = format!("/schemas/{collection}/validate");
                let reply = self.gateway.admin_json("POST", &path, &row.into());
                assert!(
                    [200, 201].contains(&reply.status),
                    "{path}: {}",
                    reply.text()
                );
            }
        }
    }
}

impl Change {
    fn line(&self) -> String {
        let key = self.collection.key.iter();
        let key = key.rev().find_map(|field| self.row.get(*field)?.as_str());
        format!(
            "{} {} {}",
            self.kind,
            self.collection.name,
            key.unwrap_or("-")
        )
    }
}
