//! The operations of the served OpenAPI document: what is generated over them covers what is added later, or fails.

use hyper::Method;
use serde_json::{Value, json};

/// An operation of the OpenAPI document.
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub described: Value,
}

impl Operation {
    /// All of them, in the document's order.
    pub fn all(document: &Value) -> Vec<Self> {
        let paths = document["paths"].as_object().unwrap();
        let of_path = |(path, item): (&String, &Value)| {
            let item = item.as_object().unwrap().clone();
            let path = path.clone();
            item.into_iter().map(move |(method, described)| Self {
                method: Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(),
                path: path.clone(),
                described,
            })
        };
        paths.iter().flat_map(of_path).collect()
    }

    pub fn parameters(&self, place: &str) -> Vec<&Value> {
        let all = self.described["parameters"].as_array().into_iter().flatten();
        all.filter(|parameter| parameter["in"] == place).collect()
    }

    pub fn takes_query(&self, name: &str) -> bool {
        self.parameters("query").iter().any(|parameter| parameter["name"] == name)
    }

    pub fn is_open(&self) -> bool {
        self.described["security"].as_array().is_some_and(|all| all.iter().any(|one| one == &json!({})))
    }

    pub fn takes_body(&self) -> bool {
        self.described["requestBody"].is_object()
    }

    pub fn needs_body(&self) -> bool {
        self.described["requestBody"]["required"] == true
    }

    /// The path with this in the place of its parameter.
    pub fn path_with(&self, id: &str) -> String {
        match (self.path.find('{'), self.path.find('}')) {
            (Some(start), Some(end)) => format!("{}{id}{}", &self.path[..start], &self.path[end + 1..]),
            _ => self.path.clone(),
        }
    }
}
