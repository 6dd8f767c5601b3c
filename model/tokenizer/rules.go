package tokenizer

import "unicode"

// rule is what a value of tokenizer.ggml.pre stands for.
type rule struct {
	expressions  []string // each cuts what the one before left whole
	digits       step     // if not nil, cuts before them
	ignoreMerges bool     // a word that is a token is that token, whatever the merges make of it
	addBOS       bool     // unless the file says otherwise
}

// Parts of the expressions below. Where a model's own expression says (?i:'s|...), the cases are written out: folding
// would let the long s and the Kelvin sign in, which llama.cpp does not.
const (
	contraction = `(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])`
	spaces      = `\s+(?!\S)|\s+`
	lines       = `\s*[\r\n]+`
	upper       = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
	lower       = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
	eastAsian   = `[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+`

	gpt2Words     = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|` + spaces
	deepSeekWords = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+" +
		`|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|` + lines + `|` + spaces
	bloomWords = ` ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+`
)

// cl100k is the expression of OpenAI's cl100k_base and its descendants, with their own idea of numbers.
func cl100k(numbers string) string {
	return contraction + `|[^\r\n\p{L}\p{N}]?\p{L}+|` + numbers + `| ?[^\s\p{L}\p{N}]+[\r\n]*|` + lines + `|` + spaces
}

// o200k is the expression of OpenAI's o200k_base, which cuts before capitals, and its descendants.
func o200k(upper, lower, suffix, numbers, newlines string) string {
	return `[^\r\n\p{L}\p{N}]?` + upper + `*` + lower + `+` + suffix + `|[^\r\n\p{L}\p{N}]?` + upper + `+` + lower + `*` + suffix +
		`|` + numbers + `| ?[^\s\p{L}\p{N}]+` + newlines + `|` + lines + `|` + spaces
}

// ruleOf knows the values of tokenizer.ggml.pre that byte-level decoder models carry. The expressions are those of the
// models' own tokenizer.json files; names that mean the same stand together.
func ruleOf(pre string) (rule, bool) {
	cuts := func(expressions ...string) (rule, bool) { return rule{expressions: expressions}, true }
	switch pre {
	case "default":
		return cuts(`[\p{P}$+<=>^~|]+`, gpt2Words, `\p{N}+`, `[0-9][0-9][0-9]`)
	case "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0", "mellum":
		return cuts(gpt2Words)
	case "smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2":
		return cuts(`\p{N}`, gpt2Words)
	case "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2":
		return rule{expressions: []string{cl100k(`\p{N}{1,3}`)}, ignoreMerges: true, addBOS: true}, true
	case "smaug-bpe", "dbrx", "chatglm-bpe", "glm4":
		return cuts(cl100k(`\p{N}{1,3}`))
	case "qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "solar-open", "grok-2", "kormo", "f2llmv2":
		return cuts(cl100k(`\p{N}`))
	case "qwen35":
		return cuts(contraction + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|` + lines + `|` + spaces)
	case "minicpm5":
		return rule{expressions: []string{`\p{N}{1,3}`, cl100k(`\p{N}+`)}, ignoreMerges: true}, true
	case "laguna":
		return cuts(`[^\n]+|\n+`, cl100k(`\p{N}`))
	case "ufakzeka":
		return cuts(`[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|` + lines + `|` + spaces)
	case "seed-coder":
		return cuts(contraction + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|` + lines + `|` + spaces)
	case "bailingmoe", "bailingmoe2", "llada-moe":
		return cuts(`'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|` + spaces)
	case "exaone-moe":
		// The model's own (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+, written so that each character can be read in one way only.
		return cuts(contraction + `|[^\r\n\p{L}\p{N}]?\p{L}(?:[\p{L}\p{M}]+| \p{L})*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|` + spaces)
	case "tekken":
		return rule{expressions: []string{o200k(upper, lower, ``, `\p{N}`, `[\r\n/]*`)}, ignoreMerges: true, addBOS: true}, true
	case "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2":
		return cuts(o200k(upper, lower, contraction+`?`, `\p{N}{1,3}`, `[\r\n/]*`))
	case "kimi-k2":
		return cuts(`\p{Han}+|` + o200k(`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]`, `[\p{Ll}\p{Lm}\p{Lo}\p{M}-[\p{Han}]]`,
			contraction+`?`, `\p{N}{1,3}`, `[\r\n]*`))
	case "youtu":
		return rule{expressions: []string{
			`[\uAC00-\uD7A3\u3131-\u318E]+|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|` + eastAsian,
			o200k(upper, lower, contraction+`?`, `\p{N}`, `[\r\n/]*`),
		}, ignoreMerges: true}, true
	case "tiny_aya", "cohere2moe":
		return rule{digits: threes(unicode.IsDigit, endsWord), expressions: []string{
			o200k(upper, lower, contraction+`?`, `\p{N}{1,3}`, `[\r\n/]*`)}}, true
	case "deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4":
		return cuts(`\p{N}{1,3}`, eastAsian, deepSeekWords)
	case "afmoe":
		return rule{digits: threes(unicode.IsNumber, nil), expressions: []string{afmoeScripts, deepSeekWords}}, true
	case "deepseek-coder":
		return cuts(`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, `[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+`, `\p{N}`)
	case "deepseek-llm":
		// The model's own \s+$ would look for the end of the text from every space of a run anew.
		return cuts(`[\r\n]`, `\s?`+deepSeekLetters+`+`, `\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+`, `(?<!\s)\s+\z`,
			`[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+`, `\p{N}+`)
	case "falcon":
		return cuts("[\\p{P}$+<=>^~|`]+", gpt2Words, `[0-9][0-9][0-9]`)
	case "poro-chat", "bloom", "gpt3-finnish":
		return cuts(bloomWords)
	case "viking":
		return cuts(bloomWords, `\p{N}`)
	}
	return rule{}, false
}

const (
	// afmoeScripts are scripts written without spaces: Han, kana, Thai, Lao, Khmer, Myanmar, Hangul.
	afmoeScripts = `[\u4E00-\u9FFF\u3400-\u4DBF\uF900-\uFAFF\u3040-\u309F\u30A0-\u30FF\uFF65-\uFF9F\u2F00-\u2FDF` +
		`\u0E00-\u0E7F\u0E80-\u0EFF\u1780-\u17FF\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF\uAC00-\uD7AF\u1100-\u11FF]+`
	// deepSeekLetters are the cased letters that DeepSeek LLM's tokenizer.json lists.
	deepSeekLetters = `[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373\u0376` +
		`\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-` +
		`\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A` +
		`\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4` +
		`\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC` +
		`\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F` +
		`\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B` +
		`\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A` +
		`\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-` +
		`\x{118DF}\x{1E900}-\x{1E943}]`
)
