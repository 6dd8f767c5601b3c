// Package tokenizer turns text into token ids and back, as the model's file says.
//
// A Tokenizer owns the vocabulary of one model: the pieces of text its ids stand for, the order in which pieces merge, and
// which ids are not text at all. The coordinator makes one from the file's metadata and asks it for prompts (Encode), for
// answers (Decoder, which never emits half a character) and for the ids that end a generation.
//
// Two families of vocabulary are read. tokenizer.ggml.model "gpt2" is byte-level BPE: text is cut into words by the rules
// that tokenizer.ggml.pre names, and each word's bytes are merged pair by pair in the order of tokenizer.ggml.merges
// (Sennrich et al. 2016; Radford et al. 2019). "llama" is SentencePiece's BPE: spaces become U+2581, the adjacent pair
// whose union has the highest score merges first, and what no piece covers falls back to byte tokens (Kudo and Richardson
// 2018). Ids agree with those of llama.cpp on the same file, save where that program approximates a model's own word rules.
//
// The invariants: a Tokenizer does not change after New and may be used from many goroutines at once; Encode gives only
// ids below Size; bytes that are not UTF-8 are encoded as the bytes they are; control tokens never come from text unless
// ParseSpecial asks for it, so that what a user writes cannot end a turn; encoding takes n log n time for n bytes whatever
// they are. New refuses, naming the key at fault: other families, an unknown or missing word rule (a wrong cut gives wrong
// answers), duplicate tokens, merges of unknown tokens, ids out of range, arrays of the wrong length.
package tokenizer

import (
	"github.com/daisy-llm/daisy/model/token"
)

// Tokenizer is one model's vocabulary. Make it with New.
type Tokenizer struct {
	pieces []string // by id: the bytes the token stands for
	kinds  []kind   // by id
	ends   map[token.ID]bool

	special special // control, unknown and user-defined tokens
	defined special // user-defined tokens alone

	bos, eos       token.ID // none where the model has no such token
	addBOS, addEOS bool
	spacePrefix    bool   // SentencePiece: text after a special token, or at the start, begins with a space
	stripAfter     []bool // by id: the white space after it is not text; nil if no token is like that

	encoder encoder
}

// none stands for a token that the model does not have.
const none token.ID = -1

// encoder turns text without special tokens into ids.
type encoder interface {
	// encode appends the ids of text. first says that nothing, or a special token, stands before it.
	encode(ids []token.ID, text string, first bool) []token.ID
}

// Options say how text is read.
type Options struct {
	AddSpecial   bool // put the beginning- and end-of-sequence tokens that the model wants around the text
	ParseSpecial bool // read control tokens written out in the text as what they are: for rendered templates, never for a user's own text
}

// Encode gives the ids of text.
func (t *Tokenizer) Encode(text string, o Options) []token.ID {
	ids := make([]token.ID, 0, len(text)/4+2)
	if o.AddSpecial && t.addBOS {
		ids = append(ids, t.bos)
	}
	matcher := &t.defined
	if o.ParseSpecial {
		matcher = &t.special
	}
	first := true
	for len(text) > 0 {
		start, end, id := matcher.find(text)
		if start > 0 {
			ids = t.encoder.encode(ids, text[:start], first)
			first = false
		}
		if id != none {
			ids = append(ids, id)
			first = true
		}
		text = text[end:]
		if id != none && t.stripAfter != nil && t.stripAfter[id] {
			text = trimSpace(text)
		}
	}
	if o.AddSpecial && t.addEOS {
		ids = append(ids, t.eos)
	}
	return ids
}

// trimSpace drops the ASCII white space at the start.
func trimSpace(text string) string {
	i := 0
	for i < len(text) && (text[i] == ' ' || text[i] >= '\t' && text[i] <= '\r') {
		i++
	}
	return text[i:]
}

// Size is the number of tokens: ids run from 0 to Size()-1.
func (t *Tokenizer) Size() int { return len(t.pieces) }

// BOS is the token that begins a sequence, if the model has one.
func (t *Tokenizer) BOS() (token.ID, bool) { return t.bos, t.bos != none }

// EOS is the token that ends a sequence, if the model has one.
func (t *Tokenizer) EOS() (token.ID, bool) { return t.eos, t.eos != none }

// AddsBOS says whether Encode with AddSpecial begins with the BOS token.
func (t *Tokenizer) AddsBOS() bool { return t.addBOS }

// IsEndOfGeneration says whether a model that emits id has nothing more to say.
func (t *Tokenizer) IsEndOfGeneration(id token.ID) bool { return t.ends[id] }

// IsControl says whether id steers the model rather than standing for text. The unknown token counts as such.
func (t *Tokenizer) IsControl(id token.ID) bool { return t.valid(id) && t.kinds[id].hidden() }

// Piece gives the bytes that id stands for, which need not be whole characters; the name of a control token; nil for an
// id that does not exist.
func (t *Tokenizer) Piece(id token.ID) []byte {
	if !t.valid(id) {
		return nil
	}
	return []byte(t.pieces[id])
}

func (t *Tokenizer) valid(id token.ID) bool { return id >= 0 && int(id) < len(t.pieces) }
