//! Values as YAML, for people.

use serde_json::Value;

/// A value in block style, without a line break at its end.
pub(super) fn block(value: &Value) -> String {
    let mut lines = Vec::new();
    write(value, 0, &mut lines);
    lines.join("\n")
}

fn write(value: &Value, indent: usize, lines: &mut Vec<String>) {
    let margin = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let key = scalar(&Value::String(key.clone()));
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        lines.push(format!("{margin}{key}:"));
                        write(value, indent + 2, lines);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        lines.push(format!("{margin}{key}:"));
                        write(value, indent, lines);
                    }
                    _ => lines.push(format!("{margin}{key}: {}", scalar(value))),
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = Vec::new();
                write(item, indent + 2, &mut inner);
                // The first line of the item stands behind the dash.
                for (number, line) in inner.into_iter().enumerate() {
                    match line.get(indent + 2..).filter(|_| number == 0) {
                        Some(rest) => lines.push(format!("{margin}- {rest}")),
                        None => lines.push(line),
                    }
                }
            }
        }
        _ => lines.push(format!("{margin}{}", scalar(value))),
    }
}

/// Text without quotes where nobody can take it for something else.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
            let word =
                text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(plain);
            let special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
            if word && !special.contains(&text.to_ascii_lowercase().as_str()) {
                text.clone()
            } else {
                value.to_string()
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let value = json!({
            "limits": {"cpu": "500m", "memory": "100Mi"}, "empty": {}, "none": [], "null": null, "no": "no",
            "list": [{"key": "a", "values": ["x", "1", 1, true]}, {"key": "b: c"}, []], "text": "two\nlines",
        });
        let text = block(&value);
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
        assert_eq!(block(&json!([{"operator": "Exists", "count": 1}])), "- count: 1\n  operator: Exists");
    }
}
