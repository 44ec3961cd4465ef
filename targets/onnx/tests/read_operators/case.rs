//! A model of a few nodes, and the parts it is made of.

use super::*;

pub fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        kind: Some(kind),
        ..AttributeProto::default()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        i: Some(i),
        ..attribute(name, ATTRIBUTE_INT)
    }
}

pub fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto {
        f: Some(f),
        ..attribute(name, ATTRIBUTE_FLOAT)
    }
}

pub fn int_list(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        ints: ints.to_vec(),
        ..attribute(name, ATTRIBUTE_INTS)
    }
}

pub fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto {
        s: Some(s.as_bytes().to_vec()),
        ..attribute(name, ATTRIBUTE_STRING)
    }
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(INT64),
        int64_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        float_data: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

/// Values between -1 and 1.
pub fn weights(name: &str, dims: &[i64]) -> TensorProto {
    let shape: Vec<usize> = dims.iter().map(|&d| d as usize).collect();
    let tensor = Noise::new(name.len() as u64 + 7).floats(&shape, -1.0, 1.0);
    floats(name, dims, tensor.floats())
}

/// A model whose result `y` depends on `x`, and possibly on `i`.
pub struct Case {
    pub name: &'static str,
    pub opset: i64,
    pub x: &'static [usize],
    /// Shape of the int64 input `i` with values 0 to 2, when there is one.
    pub i: Option<&'static [usize]>,
    pub y: i32,
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<TensorProto>,
}

pub fn case(name: &'static str, x: &'static [usize], nodes: Vec<NodeProto>) -> Case {
    Case {
        name,
        opset: 17,
        x,
        i: None,
        y: FLOAT,
        nodes,
        initializers: Vec::new(),
    }
}

impl Case {
    pub fn constants(mut self, initializers: impl Into<Vec<TensorProto>>) -> Self {
        self.initializers = initializers.into();
        self
    }

    pub fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    /// Gives the first node that attribute.
    pub fn blocks(mut self, size: i64) -> Self {
        self.nodes[0].attribute.push(int("block_size", size));
        self
    }

    pub fn indices(mut self, shape: &'static [usize]) -> Self {
        self.i = Some(shape);
        self
    }

    pub fn gives(mut self, data_type: i32) -> Self {
        self.y = data_type;
        self
    }

    pub fn model(&self) -> ModelProto {
        let ty = TensorType::new(DType::F32, Shape::fixed(self.x));
        let mut input = vec![ValueInfoProto::tensor("x", &ty)];
        input.extend(self.i.map(|shape| {
            ValueInfoProto::tensor("i", &TensorType::new(DType::I64, Shape::fixed(shape)))
        }));
        ModelProto {
            ir_version: Some(10),
            graph: Some(GraphProto {
                node: self.nodes.clone(),
                name: Some(self.name.to_owned()),
                initializer: self.initializers.clone(),
                input,
                output: vec![self.output(Vec::new())],
                ..GraphProto::default()
            }),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(self.opset),
            }],
            ..ModelProto::default()
        }
    }

    pub fn output(&self, dim: Vec<Dimension>) -> ValueInfoProto {
        ValueInfoProto {
            name: Some("y".to_owned()),
            ty: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: Some(self.y),
                    shape: Some(TensorShapeProto { dim }),
                }),
            }),
        }
    }

    /// Reads the model from `path`, where it is written with the output's shape as the reader finds it: onnx's checker
    /// compares that with its own.
    pub fn read(&self, path: &Path) -> Graph {
        let mut model = self.model();
        fs::write(path, model.encode_to_vec()).unwrap();
        let graph = snapc_onnx::read(path, &BTreeMap::new());
        let graph = graph.unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let sizes = graph.ty(graph.outputs()[0].value).shape.dims().iter();
        let dims = sizes.map(|&d| Dimension {
            value: Some(d.into()),
        });
        model.graph.as_mut().unwrap().output = vec![self.output(dims.collect())];
        fs::write(path, model.encode_to_vec()).unwrap();
        graph
    }

    pub fn inputs(&self) -> BTreeMap<String, Tensor> {
        let mut noise = Noise::new(3);
        let x = noise.floats(self.x, -2.0, 2.0);
        let mut inputs = BTreeMap::from([("x".to_owned(), x)]);
        if let Some(shape) = self.i {
            inputs.insert("i".to_owned(), noise.ints(shape, 3));
        }
        inputs
    }
}

/// A node with results `results`.
pub fn node_of(
    op: &str,
    inputs: &[&str],
    results: &[&str],
    attribute: &[AttributeProto],
) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&i| i.to_owned()).collect(),
        output: results.iter().map(|&r| r.to_owned()).collect(),
        name: Some(results[0].to_owned()),
        op_type: Some(op.to_owned()),
        attribute: attribute.to_vec(),
        domain: None,
    }
}

pub fn node(op: &str, inputs: &[&str], result: &str, attributes: &[AttributeProto]) -> NodeProto {
    node_of(op, inputs, &[result], attributes)
}

/// A node with the result `y`.
pub fn last(op: &str, inputs: &[&str], attributes: &[AttributeProto]) -> Vec<NodeProto> {
    vec![node(op, inputs, "y", attributes)]
}
