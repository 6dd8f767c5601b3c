package tokenizer

import (
	"fmt"
	"strings"

	"github.com/daisy-llm/daisy/model/token"
)

// endNames are tokens that end a generation by their name, because many files do not say so otherwise.
func endNames() []string {
	return []string{
		"<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<end_of_turn>", "<|endoftext|>",
		"</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>",
		"<｜end▁of▁sentence｜>", "[e~[",
		// Between the files of a repository: what follows is another text.
		"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
		"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>",
	}
}

// controlNames are tokens that steer the model by their name, even in files that call them normal.
func controlNames() []string {
	return []string{
		"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
		"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
		"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
	}
}

// readNamed marks the tokens that are known by their names.
func (t *Tokenizer) readNamed(v *vocabulary) {
	for _, name := range controlNames() {
		if id := v.text(name); id != none {
			v.kinds[id] = kindControl
		}
	}
	for _, name := range endNames() {
		id := v.text(name)
		switch {
		case id == none:
		case name == "</s>" && v.kinds[id] == kindDefined && id != t.eos:
			// HTML's tag, as in Gemma's vocabulary. llama.cpp takes it for a control token; so Encode does, to give the same
			// ids, but it must not end an answer.
			v.kinds[id] = kindTag
		default:
			v.kinds[id] = kindControl
			t.ends[id] = true
		}
	}
	// Models that answer in channels (OpenAI's harmony format, Solar) end a message, not the generation, with <|end|>.
	has := func(name string) bool { return v.text(name) != none }
	if (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>")) {
		if id := v.text("<|end|>"); id != none && id != t.eos {
			delete(t.ends, id)
		}
	}
}

// readMatchers collects the tokens that Encode looks for in text.
func (t *Tokenizer) readMatchers(v *vocabulary) error {
	var all, defined struct {
		texts []string
		ids   []token.ID
	}
	for id, text := range v.texts {
		k := v.kinds[id]
		if text == "" || !k.hidden() && k != kindDefined && k != kindTag {
			continue
		}
		if len(text) > maxSpecialBytes {
			return fmt.Errorf("special token %d has %d bytes: at most %d are possible", id, len(text), maxSpecialBytes)
		}
		all.texts, all.ids = append(all.texts, text), append(all.ids, token.ID(id))
		if k == kindDefined {
			defined.texts, defined.ids = append(defined.texts, text), append(defined.ids, token.ID(id))
		}
	}
	t.special = newSpecial(all.texts, all.ids)
	t.defined = newSpecial(defined.texts, defined.ids)

	// Phi-3's special tokens swallow the white space after them; only the model's name tells.
	if name, _ := v.file.String("general.name"); strings.Contains(strings.ToLower(name), "phi-3") || strings.Contains(strings.ToLower(name), "phi3") {
		t.stripAfter = make([]bool, len(v.texts))
		for _, id := range all.ids {
			switch v.texts[id] {
			case "<unk>", "<s>", "<|endoftext|>":
			default:
				t.stripAfter[id] = true
			}
		}
	}
	return nil
}
