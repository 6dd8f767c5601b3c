package gguf

import "fmt"

// Type is a tensor's element type, by ggml's number.
type Type uint32

// The tensor types of ggml. Numbers that are missing here once meant formats that ggml has removed.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
)

type typeInfo struct {
	name            string
	elements, bytes int // of one block
}

// info knows the layout of every type, from ggml-common.h; ok is false for a number that it does not know.
func (t Type) info() (info typeInfo, ok bool) {
	switch t {
	case F32:
		return typeInfo{"f32", 1, 4}, true
	case F16:
		return typeInfo{"f16", 1, 2}, true
	case BF16:
		return typeInfo{"bf16", 1, 2}, true
	case F64:
		return typeInfo{"f64", 1, 8}, true
	case I8:
		return typeInfo{"i8", 1, 1}, true
	case I16:
		return typeInfo{"i16", 1, 2}, true
	case I32:
		return typeInfo{"i32", 1, 4}, true
	case I64:
		return typeInfo{"i64", 1, 8}, true
	case Q1_0:
		return typeInfo{"q1_0", 128, 18}, true
	case Q4_0:
		return typeInfo{"q4_0", 32, 18}, true
	case Q4_1:
		return typeInfo{"q4_1", 32, 20}, true
	case Q5_0:
		return typeInfo{"q5_0", 32, 22}, true
	case Q5_1:
		return typeInfo{"q5_1", 32, 24}, true
	case Q8_0:
		return typeInfo{"q8_0", 32, 34}, true
	case Q8_1:
		return typeInfo{"q8_1", 32, 36}, true
	case Q2_K:
		return typeInfo{"q2_k", 256, 84}, true
	case Q3_K:
		return typeInfo{"q3_k", 256, 110}, true
	case Q4_K:
		return typeInfo{"q4_k", 256, 144}, true
	case Q5_K:
		return typeInfo{"q5_k", 256, 176}, true
	case Q6_K:
		return typeInfo{"q6_k", 256, 210}, true
	case Q8_K:
		return typeInfo{"q8_k", 256, 292}, true
	case IQ1_S:
		return typeInfo{"iq1_s", 256, 50}, true
	case IQ1_M:
		return typeInfo{"iq1_m", 256, 56}, true
	case IQ2_XXS:
		return typeInfo{"iq2_xxs", 256, 66}, true
	case IQ2_XS:
		return typeInfo{"iq2_xs", 256, 74}, true
	case IQ2_S:
		return typeInfo{"iq2_s", 256, 82}, true
	case IQ3_XXS:
		return typeInfo{"iq3_xxs", 256, 98}, true
	case IQ3_S:
		return typeInfo{"iq3_s", 256, 110}, true
	case IQ4_NL:
		return typeInfo{"iq4_nl", 32, 18}, true
	case IQ4_XS:
		return typeInfo{"iq4_xs", 256, 136}, true
	case TQ1_0:
		return typeInfo{"tq1_0", 256, 54}, true
	case TQ2_0:
		return typeInfo{"tq2_0", 256, 66}, true
	case MXFP4:
		return typeInfo{"mxfp4", 32, 17}, true
	case NVFP4:
		return typeInfo{"nvfp4", 64, 36}, true
	}
	return typeInfo{}, false
}

// String is the name the field uses, in lower case: "q4_1".
func (t Type) String() string {
	if info, ok := t.info(); ok {
		return info.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Block is the number of elements that are stored together and the bytes they take; 1 element for plain numbers, and
// 0, 0 for a type not known here. A File holds tensors of known types only.
func (t Type) Block() (elements, bytes int) {
	info, _ := t.info()
	return info.elements, info.bytes
}
