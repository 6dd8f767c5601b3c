package gateway

import (
	"slices"
	"strings"
)

// refuse fails on a field that other OpenAI-compatible servers know, that would change the answer, and that Daisy does not
// have yet. A field not listed here is ignored, as those servers do, and so is a value that asks for nothing.
func refuse(o *object) {
	for _, u := range []struct {
		fields string   // separated by spaces
		idle   []string // JSON values that ask for nothing, beside null, false, 0, "", [] and {}
		hint   string
	}{
		{fields: "suffix", hint: "text can only be continued at its end"},
		{fields: "functions function_call", idle: []string{`"none"`, `"auto"`}, hint: "functions are superseded by 'tools'"},
		{fields: "response_format", idle: []string{`{"type":"text"}`}, hint: "only the type 'text' is supported"},
		{fields: "modalities", idle: []string{`["text"]`}, hint: "answers are text"},
		{fields: "audio", hint: "answers are text"},
		{fields: "web_search_options", hint: "this server does not search"},
		{fields: "reasoning_effort", idle: []string{`"none"`}, hint: "the model decides how long it reasons"},
		{fields: "verbosity", idle: []string{`"medium"`}, hint: "the model decides how much it says"},
		{fields: "guided_json guided_regex guided_choice guided_grammar structured_outputs structural_tag grammar json_schema regex ebnf",
			hint: "constrained output is not supported"},
		{fields: "use_beam_search", hint: "answers are sampled"},
		{fields: "stop_token_ids", hint: "use 'stop' with the text of the token"},
		{fields: "allowed_token_ids bad_words", hint: "use 'logit_bias'"},
		{fields: "include_stop_str_in_output", hint: "an answer does not contain its stop string"},
		{fields: "prompt_logprobs", hint: "log probabilities are of generated tokens only"},
		{fields: "logprob_token_ids return_tokens_as_token_ids", hint: "use 'return_token_ids' for the ids of the answer"},
		{fields: "truncate_prompt_tokens", idle: []string{"-1"}, hint: "shorten the prompt yourself"},
		{fields: "prompt_embeds", hint: "prompts are text or token ids"},
		{fields: "thinking_token_budget", idle: []string{"-1"}, hint: "use 'max_tokens'"},
		{fields: "repetition_detection", hint: "use 'repetition_penalty'"},
		{fields: "chat_template", hint: "the model's own template is used"},
		{fields: "continue_final_message", hint: "the answer is always a message of its own"},
		{fields: "documents", hint: "put them into a message"},
		{fields: "mirostat dynatemp_range dry_multiplier xtc_probability top_n_sigma", idle: []string{"-1", "-1.0"}, hint: "this sampler is not supported"},
		{fields: "typical_p tfs_z", idle: []string{"1", "1.0"}, hint: "this sampler is not supported"},
		{fields: "lora loras", hint: "adapters are not supported"},
	} {
		for name := range strings.FieldsSeq(u.fields) {
			if raw := o.raw(name); raw != nil && !idle(raw, u.idle) {
				o.fail(unsupported(name, "'%s' is not supported here: %s.", name, u.hint))
			}
		}
	}
	// skip_special_tokens is the one field whose default is true.
	if !o.flag("skip_special_tokens", true) {
		o.fail(unsupported("skip_special_tokens", "'skip_special_tokens' cannot be false: use 'return_token_ids' to see them."))
	}
}

// idle says whether a JSON value asks for nothing, whatever its spaces.
func idle(raw []byte, more []string) bool {
	v := string(raw)
	if raw[0] == '{' || raw[0] == '[' {
		v = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", "").Replace(v)
	}
	return slices.Contains([]string{"false", "0", "0.0", `""`, "[]", "{}"}, v) || slices.Contains(more, v)
}
