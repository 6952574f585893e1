//! The part of Helm's template language that our chart uses: `if`, `with`, `else`, `end`, `define`, `include`,
//! pipelines with `quote`, `default`, `not`, `toYaml`, `indent`, `nindent`; trimming of white space. Anything else is an
//! error, so that the chart never says what only Helm understands.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::yaml;

/// Templates by name, from `define`.
pub(super) type Defined = BTreeMap<String, Vec<Node>>;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Text(String),
    Out(Pipeline),
    Block { with: bool, condition: Pipeline, then: Vec<Self>, otherwise: Vec<Self> },
}

/// Commands; each takes the result of the one before as its last argument.
type Pipeline = Vec<Vec<Term>>;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Term {
    /// `.` with the keys after it.
    Path(Vec<String>),
    Literal(Value),
    Function(String),
}

/// Text and actions in a row.
enum Token {
    Text(String),
    Action(String),
}

fn tokens(source: &str) -> anyhow::Result<Vec<Token>> {
    let mut tokens: Vec<Token> = Vec::new();
    let (mut rest, mut trim) = (source, false);
    while let Some((text, after)) = rest.split_once("{{") {
        let (action, after) = after.split_once("}}").context("{{ without }}")?;
        let text = if trim { text.trim_start() } else { text };
        let (action, before) = match action.strip_prefix("- ") {
            Some(action) => (action, true),
            None => (action, false),
        };
        let (action, behind) = match action.strip_suffix(" -") {
            Some(action) => (action, true),
            None => (action, false),
        };
        tokens.push(Token::Text(if before { text.trim_end() } else { text }.to_owned()));
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            tokens.push(Token::Action(action.to_owned()));
        }
        (rest, trim) = (after, behind);
    }
    tokens.push(Token::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(tokens)
}

/// Reads a template; what it defines goes into `defined`.
///
/// # Errors
/// If it is not of the language.
pub(super) fn parse(source: &str, defined: &mut Defined) -> anyhow::Result<Vec<Node>> {
    let mut tokens = tokens(source)?.into_iter();
    let (nodes, end) = nodes(&mut tokens, defined)?;
    ensure!(end.is_none(), "{{{{ {} }}}} without beginning", end.unwrap_or_default());
    Ok(nodes)
}

/// Nodes until `end`, `else` or the end of the file.
fn nodes(
    tokens: &mut impl Iterator<Item = Token>,
    defined: &mut Defined,
) -> anyhow::Result<(Vec<Node>, Option<String>)> {
    let mut found = Vec::new();
    while let Some(token) = tokens.next() {
        let action = match token {
            Token::Text(text) if text.is_empty() => continue,
            Token::Text(text) => {
                found.push(Node::Text(text));
                continue;
            }
            Token::Action(action) => action,
        };
        let (word, rest) = action.split_once(' ').unwrap_or((&action, ""));
        match word {
            "end" | "else" => return Ok((found, Some(action))),
            "if" | "with" => {
                let condition = pipeline(rest)?;
                let (then, mut end) = nodes(tokens, defined)?;
                let mut otherwise = Vec::new();
                if end.as_deref() == Some("else") {
                    (otherwise, end) = nodes(tokens, defined)?;
                }
                ensure!(end.as_deref() == Some("end"), "{{{{ {action} }}}} without end");
                found.push(Node::Block { with: word == "with", condition, then, otherwise });
            }
            "define" => {
                let name: String = serde_json::from_str(rest.trim()).context("define without a name")?;
                let (body, end) = nodes(tokens, defined)?;
                ensure!(end.as_deref() == Some("end"), "{{{{ {action} }}}} without end");
                defined.insert(name, body);
            }
            _ => found.push(Node::Out(pipeline(&action)?)),
        }
    }
    Ok((found, None))
}

fn pipeline(text: &str) -> anyhow::Result<Pipeline> {
    let commands = text.split('|').map(|command| words(command)?.iter().map(|word| term(word)).collect());
    let pipeline: Pipeline = commands.collect::<anyhow::Result<_>>()?;
    ensure!(pipeline.iter().all(|command| !command.is_empty()), "an empty command in {text:?}");
    Ok(pipeline)
}

/// Words; text in quotes is one.
fn words(text: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if rest.starts_with('"') {
            let closing = rest.get(1..).and_then(|rest| rest.find('"')).context("a quote without end")?;
            closing + 2
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let (word, after) = rest.split_at_checked(end).context("a word without end")?;
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Ok(words)
}

fn term(word: &str) -> anyhow::Result<Term> {
    if let Some(path) = word.strip_prefix('.') {
        return Ok(Term::Path(path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect()));
    }
    if let Ok(literal) = serde_json::from_str(word) {
        return Ok(Term::Literal(literal));
    }
    ensure!(
        ["include", "quote", "default", "not", "toYaml", "indent", "nindent"].contains(&word),
        "{word:?} is not of the part of the template language that is used here"
    );
    Ok(Term::Function(word.to_owned()))
}

/// Renders nodes; `dot` is `.`.
///
/// # Errors
/// If a value that is printed is not there, or a function is used in another way than its own.
pub(super) fn render(nodes: &[Node], dot: &Value, defined: &Defined) -> anyhow::Result<String> {
    let mut text = String::new();
    for node in nodes {
        match node {
            Node::Text(part) => text.push_str(part),
            Node::Out(pipeline) => text.push_str(&printed(&evaluate(pipeline, dot, defined)?)?),
            Node::Block { with, condition, then, otherwise } => {
                let value = evaluate(condition, dot, defined)?;
                let (nodes, dot) = match (is_true(&value), *with) {
                    (true, true) => (then, &value),
                    (true, false) => (then, dot),
                    (false, _) => (otherwise, dot),
                };
                text.push_str(&render(nodes, dot, defined)?);
            }
        }
    }
    Ok(text)
}

fn evaluate(pipeline: &Pipeline, dot: &Value, defined: &Defined) -> anyhow::Result<Value> {
    let mut last: Option<Value> = None;
    for command in pipeline {
        let (first, rest) = command.split_first().context("an empty command")?;
        let mut arguments: Vec<Value> =
            rest.iter().map(|term| value(term, dot)).collect::<anyhow::Result<_>>()?;
        arguments.extend(last.take());
        last = Some(match first {
            Term::Function(name) => {
                call(name, &arguments, defined).with_context(|| format!("in {command:?}"))?
            }
            term if arguments.is_empty() => value(term, dot)?,
            _ => bail!("{command:?} is no function"),
        });
    }
    last.context("an empty pipeline")
}

fn value(term: &Term, dot: &Value) -> anyhow::Result<Value> {
    match term {
        Term::Literal(value) => Ok(value.clone()),
        Term::Path(keys) => {
            Ok(keys.iter().try_fold(dot, |value, key| value.get(key)).cloned().unwrap_or(Value::Null))
        }
        Term::Function(name) => bail!("{name} is a function"),
    }
}

fn call(name: &str, arguments: &[Value], defined: &Defined) -> anyhow::Result<Value> {
    let indented = |width: &Value, text: &Value| -> anyhow::Result<String> {
        let width = usize::try_from(width.as_u64().context("the width is no number")?)?;
        let text = printed(text)?;
        let margin = " ".repeat(width);
        Ok(text.lines().map(|line| format!("{margin}{line}")).collect::<Vec<_>>().join("\n"))
    };
    let text = match (name, arguments) {
        ("default", [fallback, value]) => return Ok(if is_true(value) { value } else { fallback }.clone()),
        ("not", [value]) => return Ok(Value::Bool(!is_true(value))),
        ("quote", [value]) => serde_json::to_string(&printed(value)?)?,
        ("toYaml", [value]) => yaml::block(value),
        ("indent", [width, text]) => indented(width, text)?,
        ("nindent", [width, text]) => format!("\n{}", indented(width, text)?),
        ("include", [Value::String(name), dot]) => {
            let body = defined.get(name).with_context(|| format!("{name} is not defined"))?;
            render(body, dot, defined)?
        }
        _ => bail!("{name} does not take {} arguments", arguments.len()),
    };
    Ok(Value::String(text))
}

/// As `if` sees it: empty things are false.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn printed(value: &Value) -> anyhow::Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null => bail!("a value that is printed is not there"),
        Value::Array(_) | Value::Object(_) => bail!("{value} is printed without toYaml"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str) -> anyhow::Result<String> {
        let dot = json!({"a": {"b": "text", "n": 7, "no": false, "empty": {}, "list": ["x", 1]}});
        let mut defined = Defined::new();
        let nodes = parse(source, &mut defined)?;
        render(&nodes, &dot, &defined)
    }

    #[test]
    fn templates_render_as_helm_renders_them() {
        for (source, expected) in [
            ("x: {{ .a.b }}", "x: text"),
            ("x: {{ .a.n }} {{ .a.b | quote }}", "x: 7 \"text\""),
            ("a\n{{- if .a.b }}\nyes\n{{- else }}\nno\n{{- end }}\nb", "a\nyes\nb"),
            ("{{ if not .a.no }}yes{{ end }}", "yes"),
            ("{{ if .a.empty }}yes{{ else }}no{{ end }}", "no"),
            (
                "{{- with .a.list }}\nlist:\n  {{- toYaml . | nindent 2 }}\n{{- end }}",
                "\nlist:\n  - x\n  - 1",
            ),
            ("{{ .a.nothing | default .a.empty | default \"c\" }}", "c"),
            (
                "{{- define \"t\" -}}\nk: {{ .a.b }}\n{{- end }}x:\n  {{- include \"t\" . | nindent 2 }}",
                "x:\n  k: text",
            ),
            ("a {{/* no\nword */}} b", "a  b"),
            ("a {{- /* trims */ -}} b", "ab"),
        ] {
            assert_eq!(rendered(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn what_is_not_of_the_language_is_refused() {
        for source in [
            "{{ .a.b ",
            "{{ if .a }}",
            "{{ end }}",
            "{{ lookup .a }}",
            "{{ range .a.list }}{{ end }}",
            "{{ .a.missing }}",
            "{{ .a.list }}",
            "{{ include \"t\" . }}",
            "{{ quote }}",
        ] {
            assert!(rendered(source).is_err(), "{source}");
        }
    }
}
