//! Text to graph.

use super::lexer::{Token, tokens};
use crate::graph::{BuildError, Graph, ValueId};
use crate::ops::{Attribute, AttributeError, AttributeMap, InferError, Op};
use crate::types::{DType, Dim, Shape, TensorType, UnknownDType};
use crate::weight::LazyTensor;

/// A mistake in the text, with its line (counted from 1).
#[derive(Clone, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line.
    pub line: usize,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong in a text form.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A sign that the language does not have.
    #[error("unexpected character '{0}'")]
    Character(char),
    /// A word that is neither a name nor a number.
    #[error("malformed word '{0}'")]
    Word(String),
    /// A string that does not end on its line.
    #[error("a string is not closed")]
    OpenText,
    /// An escape that the language does not have.
    #[error("unknown escape in a string")]
    Escape,
    /// Another token than the grammar asks for.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the grammar asks for.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A use of a value that no earlier line defines.
    #[error("%{0} is not defined")]
    Undefined(usize),
    /// The type after the colon is not the inferred one.
    #[error("stated as {stated} but is {inferred}")]
    Type {
        /// What the text says.
        stated: TensorType,
        /// What the operator infers.
        inferred: TensorType,
    },
    /// The data of a weight has another length than its type.
    #[error("{ty} has {expected} elements, found {found}")]
    Length {
        /// The type of the weight.
        ty: TensorType,
        /// Elements of the type.
        expected: usize,
        /// Elements listed.
        found: usize,
    },
    /// A weight of open size.
    #[error("a weight has no batch dimension")]
    BatchWeight,
    /// A type that no memory holds.
    #[error("{0} is too large")]
    TooLarge(TensorType),
    /// An integer weight that does not fit its element type.
    #[error("a value does not fit {0}")]
    Value(DType),
    /// A word where an element type is expected.
    #[error(transparent)]
    DType(#[from] UnknownDType),
    /// Attributes that do not make the operator.
    #[error(transparent)]
    Attribute(#[from] AttributeError),
    /// Operands that the operator does not accept.
    #[error("{op}: {source}")]
    Infer {
        /// The operator.
        op: &'static str,
        /// What is wrong.
        source: InferError,
    },
}

impl Problem {
    pub(super) fn at(self, line: usize) -> ParseError {
        ParseError {
            line,
            problem: self,
        }
    }
}

/// Reads the text form of a graph.
///
/// # Errors
/// The first mistake, with its line.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        position: 0,
    };
    parser.graph().map_err(|problem| {
        let last = parser.position.saturating_sub(1);
        problem.at(parser.tokens[last].0)
    })
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    position: usize,
}

type Parsed<T> = Result<T, Problem>;

impl Parser {
    fn peek(&self) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[self.position.min(last)].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position = (self.position + 1).min(self.tokens.len());
        token
    }

    fn accept(&mut self, sign: char) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.next();
        }
        found
    }

    fn sign(&mut self, sign: char) -> Parsed<()> {
        match self.next() {
            Token::Sign(c) if c == sign => Ok(()),
            other => Err(expected(&format!("'{sign}'"), &other)),
        }
    }

    fn text(&mut self) -> Parsed<String> {
        match self.next() {
            Token::Text(t) => Ok(t),
            other => Err(expected("a name in quotes", &other)),
        }
    }

    fn word(&mut self, what: &str) -> Parsed<String> {
        match self.next() {
            Token::Word(w) => Ok(w),
            other => Err(expected(what, &other)),
        }
    }

    fn graph(&mut self) -> Parsed<Graph> {
        let word = self.word("'graph'")?;
        if word != "graph" {
            return Err(expected("'graph'", &Token::Word(word)));
        }
        let mut graph = Graph::new(self.text()?);
        self.sign('{')?;
        loop {
            match self.next() {
                Token::Sign('}') => break,
                Token::Value(n) if n == graph.values().len() => {
                    self.sign('=')?;
                    self.definition(&mut graph)?;
                }
                Token::Value(n) => {
                    let next = format!("%{}", graph.values().len());
                    return Err(expected(&next, &Token::Value(n)));
                }
                Token::Word(w) if w == "output" => {
                    let name = self.text()?;
                    self.sign('=')?;
                    let value = self.value(&graph)?;
                    graph.output(name, value);
                }
                other => return Err(expected("'}'", &other)),
            }
        }
        match self.next() {
            Token::End => Ok(graph),
            other => Err(expected("the end", &other)),
        }
    }

    fn definition(&mut self, graph: &mut Graph) -> Parsed<()> {
        let word = self.word("an operator")?;
        match word.as_str() {
            "input" => {
                let name = self.text()?;
                let ty = self.ty()?;
                graph.input(name, ty);
            }
            "parameter" | "constant" => {
                let name = self.text()?;
                let tensor = self.weight()?;
                if word == "parameter" {
                    graph.parameter(name, tensor);
                } else {
                    graph.constant(name, tensor);
                }
            }
            op => self.node(op, graph)?,
        }
        Ok(())
    }

    fn node(&mut self, op: &str, graph: &mut Graph) -> Parsed<()> {
        self.sign('(')?;
        let mut operands = Vec::new();
        while !self.accept(')') {
            operands.push(self.value(graph)?);
            if !self.accept(',') {
                self.sign(')')?;
                break;
            }
        }
        let mut attributes = AttributeMap::default();
        if self.accept('{') {
            loop {
                let name = self.word("an attribute")?;
                self.sign('=')?;
                attributes.0.insert(name, self.attribute()?);
                if !self.accept(',') {
                    self.sign('}')?;
                    break;
                }
            }
        }
        let op = Op::from_parts(op, attributes)?;
        let stated = self.ty()?;
        let name = self.text()?;
        let result = graph.add(op, &operands, name).map_err(infer_problem)?;
        let inferred = graph.ty(result).clone();
        if stated == inferred {
            Ok(())
        } else {
            Err(Problem::Type { stated, inferred })
        }
    }

    fn value(&mut self, graph: &Graph) -> Parsed<ValueId> {
        match self.next() {
            Token::Value(n) if n < graph.values().len() => Ok(ValueId::from_index(n)),
            Token::Value(n) => Err(Problem::Undefined(n)),
            other => Err(expected("a value", &other)),
        }
    }

    /// `: dtype[dims]`
    fn ty(&mut self) -> Parsed<TensorType> {
        self.sign(':')?;
        let dtype: DType = self.word("an element type")?.parse()?;
        self.sign('[')?;
        let dims = self.list(|p| match p.next() {
            Token::Word(w) if w == "N" => Ok(Dim::Batch),
            Token::Int(n) => usize::try_from(n)
                .map(Dim::Fixed)
                .map_err(|_| expected("a size", &Token::Int(n))),
            other => Err(expected("a size", &other)),
        })?;
        let ty = TensorType::new(dtype, Shape(dims));
        match ty.bytes_per_batch() {
            Some(_) => Ok(ty),
            None => Err(Problem::TooLarge(ty)),
        }
    }

    /// Items up to the closing `]`, whose `[` has been read.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.accept(']') {
            items.push(item(self)?);
            if !self.accept(',') {
                self.sign(']')?;
                break;
            }
        }
        Ok(items)
    }

    fn attribute(&mut self) -> Parsed<Attribute> {
        match self.next() {
            Token::Int(n) => usize::try_from(n)
                .map(Attribute::Int)
                .map_err(|_| expected("a value that is not negative", &Token::Int(n))),
            Token::Float(x) => Ok(Attribute::Float(x)),
            Token::Word(w) if w == "true" => Ok(Attribute::Bool(true)),
            Token::Word(w) if w == "false" => Ok(Attribute::Bool(false)),
            Token::Word(w) => Ok(Attribute::DType(w.parse()?)),
            Token::Sign('[') => {
                let dims = self.list(|p| match p.next() {
                    Token::Word(w) if w == "N" => Ok(Dim::Batch),
                    Token::Int(n) if n >= 0 => Ok(Dim::Fixed(n as usize)),
                    other => Err(expected("a size", &other)),
                })?;
                let fixed: Option<Vec<usize>> = dims.iter().map(|d| d.fixed()).collect();
                Ok(fixed.map_or(Attribute::Dims(dims), Attribute::Ints))
            }
            other => Err(expected("an attribute value", &other)),
        }
    }

    fn weight(&mut self) -> Parsed<LazyTensor> {
        let ty = self.ty()?;
        let shape = ty.shape.to_fixed().ok_or(Problem::BatchWeight)?;
        if !self.accept('=') {
            return Ok(LazyTensor::absent(ty.dtype, &shape));
        }
        self.sign('[')?;
        let elements = shape.iter().product();
        let check_length = |found: usize| {
            if found == elements {
                return Ok(());
            }
            Err(Problem::Length {
                ty: ty.clone(),
                expected: elements,
                found,
            })
        };
        if ty.dtype.is_float() {
            let data = self.list(|p| match p.next() {
                Token::Int(n) => Ok(n as f32),
                Token::Float(x) => Ok(x),
                other => Err(expected("a number", &other)),
            })?;
            check_length(data.len())?;
            return Ok(LazyTensor::from_f32(&shape, &data).cast(ty.dtype));
        }
        let data = self.list(|p| match p.next() {
            Token::Int(n) => Ok(n),
            other => Err(expected("a whole number", &other)),
        })?;
        check_length(data.len())?;
        let tensor = LazyTensor::from_i64(&shape, &data).cast(ty.dtype);
        match tensor.bytes() {
            Ok(_) => Ok(tensor),
            Err(_) => Err(Problem::Value(ty.dtype)),
        }
    }
}

fn expected(expected: &str, found: &Token) -> Problem {
    Problem::Expected {
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

fn infer_problem(error: BuildError) -> Problem {
    match error {
        BuildError::Infer { op, source, .. } => Problem::Infer { op, source },
        other => unreachable!("adding a node only infers types: {other}"),
    }
}
