package tokenizer

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/token"
)

// Bounds on what a file may hold. Real vocabularies have up to 300,000 tokens of at most 1024 bytes, and special tokens of
// some tens.
const (
	maxTokens       = 1 << 22
	maxTokenBytes   = 1 << 14
	maxSpecialBytes = 512 // what Encode may look at again at every byte of a text
)

// The keys that New reads.
const (
	keyModel       = "tokenizer.ggml.model"
	keyPre         = "tokenizer.ggml.pre"
	keyTokens      = "tokenizer.ggml.tokens"
	keyTypes       = "tokenizer.ggml.token_type"
	keyScores      = "tokenizer.ggml.scores"
	keyMerges      = "tokenizer.ggml.merges"
	keyAddBOS      = "tokenizer.ggml.add_bos_token"
	keyAddEOS      = "tokenizer.ggml.add_eos_token"
	keySpacePrefix = "tokenizer.ggml.add_space_prefix"
	keyBOS         = "tokenizer.ggml.bos_token_id"
	keyEOS         = "tokenizer.ggml.eos_token_id"
	keyEOT         = "tokenizer.ggml.eot_token_id"
	keyEOM         = "tokenizer.ggml.eom_token_id"
	keyUnknown     = "tokenizer.ggml.unknown_token_id"
)

// kind is what a token is, by the number that tokenizer.ggml.token_type has for it.
type kind uint8

const (
	kindNormal  kind = 1
	kindUnknown kind = 2
	kindControl kind = 3
	kindDefined kind = 4 // by the user: found in any text before all else
	kindUnused  kind = 5
	kindByte    kind = 6 // <0x00> to <0xFF>
	kindTag     kind = 7 // no number of the file's: text that only ParseSpecial finds
)

// hidden says whether the token stands for no text.
func (k kind) hidden() bool { return k == kindControl || k == kindUnknown }

// vocabulary is what the file says of the tokens, checked.
type vocabulary struct {
	file    *gguf.File
	texts   []string // by id, as the file writes them; an empty one is never found in text
	kinds   []kind   // by id
	pieces  []string // by id: the bytes they stand for
	byText  map[string]token.ID
	unknown token.ID
}

// New reads the tokenizer of a model file. It keeps nothing of the file: that may be closed.
func New(f *gguf.File) (*Tokenizer, error) {
	t, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	return t, nil
}

func read(f *gguf.File) (*Tokenizer, error) {
	family, ok := f.String(keyModel)
	if !ok {
		return nil, fmt.Errorf("the file does not say %s: it holds no tokenizer", keyModel)
	}
	var r rule
	switch family {
	case "gpt2":
		pre, ok := f.String(keyPre)
		if !ok {
			return nil, fmt.Errorf("the file does not say %s, and a wrong guess at how it cuts words would give wrong answers: convert the model anew", keyPre)
		}
		if r, ok = ruleOf(pre); !ok {
			return nil, fmt.Errorf("%s %q is not known, and a wrong guess at how it cuts words would give wrong answers", keyPre, pre)
		}
	case "llama":
		r.addBOS = true
	default:
		return nil, fmt.Errorf("%s %q is not supported: gpt2 and llama are", keyModel, family)
	}
	v, err := readVocabulary(f)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{kinds: v.kinds, pieces: v.pieces}
	if err := t.readSpecial(v, r, family == "llama"); err != nil {
		return nil, err
	}
	if family == "gpt2" {
		t.encoder, err = readBPE(v, r)
	} else {
		if t.spacePrefix, err = boolean(f, keySpacePrefix, true); err != nil {
			return nil, err
		}
		t.encoder, err = readSentencePiece(v, t.spacePrefix)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func readBPE(v *vocabulary, r rule) (encoder, error) {
	cuts, err := newSplitter(r)
	if err != nil {
		return nil, err
	}
	merges, ok := v.file.Strings(keyMerges)
	if !ok {
		return nil, fmt.Errorf("%s is missing or no list of strings", keyMerges)
	}
	return newBPE(v, cuts, merges, r.ignoreMerges)
}

func readSentencePiece(v *vocabulary, prefix bool) (encoder, error) {
	scores, ok := v.file.Floats(keyScores)
	if !ok {
		return nil, fmt.Errorf("%s is missing or no list of numbers", keyScores)
	}
	if len(scores) != len(v.texts) {
		return nil, fmt.Errorf("%s has %d entries for %d tokens", keyScores, len(scores), len(v.texts))
	}
	return newSentencePiece(v, scores, prefix)
}

func readVocabulary(f *gguf.File) (*vocabulary, error) {
	texts, ok := f.Strings(keyTokens)
	if !ok {
		return nil, fmt.Errorf("%s is missing or no list of strings", keyTokens)
	}
	if len(texts) == 0 || len(texts) > maxTokens {
		return nil, fmt.Errorf("%s has %d entries: from 1 to %d are possible", keyTokens, len(texts), maxTokens)
	}
	v := &vocabulary{
		file:    f,
		texts:   texts,
		kinds:   make([]kind, len(texts)),
		pieces:  make([]string, len(texts)),
		byText:  make(map[string]token.ID, len(texts)),
		unknown: none,
	}
	copy(v.pieces, texts)
	for id, text := range texts {
		v.kinds[id] = kindNormal
		if len(text) > maxTokenBytes {
			return nil, fmt.Errorf("token %d has %d bytes: at most %d are possible", id, len(text), maxTokenBytes)
		}
		if text == "" {
			continue
		}
		if other, ok := v.byText[text]; ok {
			return nil, fmt.Errorf("tokens %d and %d are the same: %.100q", other, id, text)
		}
		v.byText[text] = token.ID(id)
	}
	if !f.Has(keyTypes) {
		return v, nil
	}
	types, ok := f.Ints(keyTypes)
	if !ok {
		return nil, fmt.Errorf("%s is no list of integers", keyTypes)
	}
	if len(types) != len(texts) {
		return nil, fmt.Errorf("%s has %d entries for %d tokens", keyTypes, len(types), len(texts))
	}
	for id, number := range types {
		if number >= int64(kindNormal) && number <= int64(kindByte) {
			v.kinds[id] = kind(number)
		}
		if v.kinds[id] == kindByte {
			c, ok := byteOfName(texts[id])
			if !ok {
				return nil, fmt.Errorf("token %d, %.100q, is said to be a byte but is not named like <0x0A>", id, texts[id])
			}
			v.pieces[id] = string([]byte{c})
		}
	}
	return v, nil
}

// byteOfName reads names like <0x0A>.
func byteOfName(name string) (byte, bool) {
	if len(name) != 6 || !strings.HasPrefix(name, "<0x") || name[5] != '>' {
		return 0, false
	}
	n, err := strconv.ParseUint(name[3:5], 16, 8)
	return byte(n), err == nil
}

// text is the id of the token that the file writes so, or none.
func (v *vocabulary) text(text string) token.ID {
	if id, ok := v.byText[text]; ok {
		return id
	}
	return none
}

// id reads a key that holds a token's id. Without the key, it is otherwise, if there is such a token.
func (v *vocabulary) id(key string, otherwise token.ID) (token.ID, error) {
	if !v.file.Has(key) {
		if int(otherwise) >= len(v.texts) {
			return none, nil
		}
		return otherwise, nil
	}
	n, ok := v.file.Uint(key)
	// Converters write a missing token as -1, which as uint32 is its largest value.
	if minus, signed := v.file.Int(key); signed && (minus == -1 || minus == math.MaxUint32) {
		return none, nil
	}
	if !ok || n >= uint64(len(v.texts)) {
		return none, fmt.Errorf("%s is no token: there are %d", key, len(v.texts))
	}
	return token.ID(n), nil
}

// readSpecial finds out which tokens are not text, and which of them begin and end sequences and generations.
func (t *Tokenizer) readSpecial(v *vocabulary, r rule, sentencePiece bool) error {
	bos, eos, unknown := none, none, none
	if sentencePiece {
		bos, eos, unknown = 1, 2, 0
	}
	t.ends = map[token.ID]bool{}
	for _, key := range []struct {
		name      string
		id        *token.ID
		otherwise token.ID
		ends      bool
	}{
		{keyBOS, &t.bos, bos, false},
		{keyEOS, &t.eos, eos, true},
		{keyUnknown, &v.unknown, unknown, false},
		{keyEOT, new(token.ID), none, true},
		{keyEOM, new(token.ID), none, true},
	} {
		id, err := v.id(key.name, key.otherwise)
		if err != nil {
			return err
		}
		*key.id = id
		if key.ends && id != none {
			t.ends[id] = true
		}
	}
	t.readNamed(v)
	// Where it also ends a generation, as in GPT-2's vocabulary, no text may become the unknown token.
	if t.ends[v.unknown] {
		v.unknown = none
	}
	if err := t.readAdded(v.file, r); err != nil {
		return err
	}
	return t.readMatchers(v)
}

// readAdded finds out what Encode puts around a text.
func (t *Tokenizer) readAdded(f *gguf.File, r rule) error {
	t.addBOS = r.addBOS && t.bos != none
	var err error
	if t.addBOS, err = boolean(f, keyAddBOS, r.addBOS && t.bos != none); err != nil {
		return err
	}
	if t.addEOS, err = boolean(f, keyAddEOS, false); err != nil {
		return err
	}
	switch {
	case t.addBOS && t.bos == none:
		return fmt.Errorf("%s is true, but there is no %s", keyAddBOS, keyBOS)
	case t.addEOS && t.eos == none:
		return fmt.Errorf("%s is true, but there is no %s", keyAddEOS, keyEOS)
	}
	return nil
}

// boolean reads a key that may be missing.
func boolean(f *gguf.File, key string, otherwise bool) (bool, error) {
	if !f.Has(key) {
		return otherwise, nil
	}
	value, ok := f.Bool(key)
	if !ok {
		return false, fmt.Errorf("%s is no boolean but %s", key, f.Kind(key))
	}
	return value, nil
}
