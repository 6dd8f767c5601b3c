package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
)

// Bounds that a file's numbers must keep. They are far above every model known, and keep every product of two of them
// within an int.
const (
	MaxLayers      = 1024
	MaxHidden      = 1 << 17 // also of all heads together
	MaxHeads       = 1024
	MaxHeadDim     = 1024
	MaxFeedForward = 1 << 20
	MaxVocab       = 1 << 22
	MaxContext     = 1 << 24
)

// Config is the shape of a model and the numbers its arithmetic needs, as its file states them.
type Config struct {
	Architecture string // general.architecture
	Name         string // general.name, for people

	Layers      int
	Hidden      int // width of the residual stream
	Heads       int // query heads
	KVHeads     int // key and value heads, each shared by Heads/KVHeads query heads
	HeadDim     int
	FeedForward int
	Vocab       int
	Context     int // positions the model was made for

	Epsilon float32 // of RMS norms

	Rope    Rope
	Sliding []bool // (layer) only the last Window positions are seen
	Window  int    // 0: no layer slides

	EmbeddingScale float32 // multiplies embeddings
	ResidualScale  float32 // multiplies what a layer adds to the stream
	AttentionScale float32 // multiplies the scores
	LogitDivisor   float32 // divides the logits
	AttentionCap   float32 // bounds the scores, softly; 0: nothing does
	LogitCap       float32 // bounds the logits, softly; 0: nothing does

	Norms      Norms      // of the stream
	QKNorm     QKNorm     // norms on queries and keys
	Activation Activation // of the feed-forward's gate
	Biases     Biases     // which biases must be there
	TiedHead   bool       // the head is the token embedding
}

// Norms are where a layer norms, around attention and around the feed-forward.
type Norms uint8

const (
	NormsBefore Norms = iota // their input
	NormsAfter               // their output, before it is added
	NormsAround              // both
)

// Activation is what a gate passes through before it multiplies.
type Activation uint8

const (
	SiLU Activation = iota
	GELU            // in its tanh form
)

// QKNorm is what an RMS norm of queries and keys, before RoPE, runs over.
type QKNorm uint8

const (
	NoQKNorm    QKNorm = iota
	PerHead            // each head by itself
	AcrossHeads        // all heads together
)

// Biases are the projections that carry a bias.
type Biases uint8

const (
	OptionalBiases Biases = iota // whatever the file has
	QKVBiases                    // queries, keys and values must have one
)

// Rope is how queries and keys turn with their position.
type Rope struct {
	Dims        int     // leading elements of a head that turn; the others stay
	Adjacent    bool    // pairs are (2i, 2i+1); otherwise (i, i+Dims/2)
	Base        float64 // pair i turns by Base^(-2i/Dims) a position
	SlidingBase float64 // Base of the layers that slide
	Factors     bool    // the tensor rope_freqs divides the frequencies
	Skip        int     // every so many layers one does not turn; 0: all do
	Scaling     RopeScaling
}

// RopeScaling stretches RoPE to more positions than the model was first trained on.
type RopeScaling struct {
	Kind            RopeScalingKind
	Factor          float64 // divides positions
	OriginalContext int     // YaRN: positions the frequencies were trained on
	BetaFast        float64 // YaRN: pairs with more turns than this in OriginalContext keep their frequency
	BetaSlow        float64 // YaRN: pairs with fewer are divided by Factor; in between there is a ramp
	Magnitude       float64 // multiplies sine and cosine
	FullOnly        bool    // layers that slide are not scaled
}

// RopeScalingKind is the method of a RopeScaling.
type RopeScalingKind uint8

const (
	NoScaling RopeScalingKind = iota
	LinearScaling
	YarnScaling // Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", 2023
)

// Slides says whether a layer sees only the last Window positions.
func (c *Config) Slides(l LayerIndex) bool { return c.Window > 0 && c.Sliding[l] }

// Turns says whether a layer applies RoPE.
func (c *Config) Turns(l LayerIndex) bool { return c.Rope.Skip == 0 || (int(l)+1)%c.Rope.Skip != 0 }

// queryDim and kvDim are the widths of all query heads and of all key (or value) heads together.
func (c *Config) queryDim() int { return c.Heads * c.HeadDim }
func (c *Config) kvDim() int    { return c.KVHeads * c.HeadDim }

// qkvDim is the width of queries, keys and values side by side.
func (c *Config) qkvDim() int { return c.queryDim() + 2*c.kvDim() }

// ReadConfig reads and bounds the configuration, and checks that every tensor the model needs is in the file, with the
// right shape and a type that Daisy computes with.
func ReadConfig(f *gguf.File) (*Config, error) {
	arch, ok := f.String("general.architecture")
	if !ok {
		return nil, errors.New("the model file does not name its architecture: the key general.architecture is missing")
	}
	m := &metadata{file: f, arch: arch}
	c := &Config{Architecture: arch, EmbeddingScale: 1, ResidualScale: 1, LogitDivisor: 1}
	if err := c.readArchitecture(m); err != nil {
		return nil, err
	}
	c.Name, _ = f.String("general.name")
	c.readShape(m)
	c.readAttention(m)
	c.readRope(m)
	if m.err != nil {
		return nil, m.err
	}
	if err := c.checkTensors(f); err != nil {
		return nil, err
	}
	return c, nil
}

// readArchitecture sets what no key says.
func (c *Config) readArchitecture(m *metadata) error {
	switch m.arch {
	case "llama":
		c.Rope.Adjacent = true
	case "qwen2":
		c.Biases = QKVBiases
	case "qwen3":
		c.QKNorm = PerHead
	case "smollm3":
		c.Rope.Adjacent = true
		c.Rope.Skip = 4
	case "granite":
		c.Rope.Adjacent = true
		c.EmbeddingScale = m.scale("embedding_scale")
		c.ResidualScale = m.scale("residual_scale")
		c.LogitDivisor = m.scale("logit_scale")
		if turns, ok := m.file.Bool(m.key("rope.scaling.finetuned")); ok && !turns {
			c.Rope.Skip = 1
		}
	case "olmo2":
		c.Norms = NormsAfter
		c.QKNorm = AcrossHeads
		c.Rope.Scaling.FullOnly = true
	case "gemma2":
		c.readGemma(m)
		c.AttentionCap = float32(m.number("attn_logit_softcapping", 50, 0, 1e6))
		c.LogitCap = float32(m.number("final_logit_softcapping", 30, 0, 1e6))
	case "gemma3":
		c.readGemma(m)
		c.AttentionCap = float32(m.number("attn_logit_softcapping", 0, 0, 1e6))
		c.LogitCap = float32(m.number("final_logit_softcapping", 0, 0, 1e6))
		c.QKNorm = PerHead
		c.Rope.Scaling.FullOnly = true
	default:
		return fmt.Errorf("the architecture %.100q is not supported: Daisy runs %s", m.arch, strings.Join(Architectures(), ", "))
	}
	if experts := m.integer("expert_count", 0, 0, 1<<16); experts > 0 {
		return fmt.Errorf("mixtures of experts are not supported yet: %s is %d", m.key("expert_count"), experts)
	}
	if causal, ok := m.file.Bool(m.key("attention.causal")); ok && !causal {
		return fmt.Errorf("models that are not causal cannot generate: %s is false", m.key("attention.causal"))
	}
	return m.err
}

// Architectures lists those that ReadConfig knows.
func Architectures() []string {
	return []string{"gemma2", "gemma3", "granite", "llama", "olmo2", "qwen2", "qwen3", "smollm3"}
}

// readGemma sets what the Gemmas share.
func (c *Config) readGemma(m *metadata) {
	c.Norms = NormsAround
	c.Activation = GELU
	c.EmbeddingScale = float32(math.Sqrt(float64(m.integer("embedding_length", required, 1, MaxHidden))))
}

func (c *Config) readShape(m *metadata) {
	c.Layers = m.integer("block_count", required, 1, MaxLayers)
	c.Hidden = m.integer("embedding_length", required, 1, MaxHidden)
	c.FeedForward = m.integer("feed_forward_length", required, 1, MaxFeedForward)
	c.Context = m.integer("context_length", required, 1, MaxContext)
	c.Heads = m.integer("attention.head_count", required, 1, MaxHeads)
	c.KVHeads = m.integer("attention.head_count_kv", c.Heads, 1, MaxHeads)
	if m.err != nil {
		return
	}
	if c.Heads%c.KVHeads != 0 {
		m.fail("%s is %d, which %d query heads cannot share evenly", m.key("attention.head_count_kv"), c.KVHeads, c.Heads)
	}
	c.HeadDim = m.integer("attention.key_length", c.Hidden/c.Heads, 1, MaxHeadDim)
	if m.err == nil && !m.file.Has(m.key("attention.key_length")) && c.Hidden%c.Heads != 0 {
		m.fail("%s is missing, and %d hidden values cannot be divided among %d heads", m.key("attention.key_length"), c.Hidden, c.Heads)
	}
	if values := m.integer("attention.value_length", c.HeadDim, 1, MaxHeadDim); values != c.HeadDim {
		m.fail("keys of %d and values of %d elements a head are not supported: they must be equal", c.HeadDim, values)
	}
	if c.queryDim() > MaxHidden {
		m.fail("%d heads of %d elements are more than %d", c.Heads, c.HeadDim, MaxHidden)
	}
	embedding, ok := m.file.Tensor("token_embd.weight")
	if !ok {
		m.fail("the tensor token_embd.weight is missing")
		return
	}
	if c.Vocab = embedding.Rows(); c.Vocab > MaxVocab {
		m.fail("the tensor token_embd.weight has %d rows: at most %d are supported", c.Vocab, MaxVocab)
	}
	_, head := m.file.Tensor("output.weight")
	c.TiedHead = !head
}

func (c *Config) readAttention(m *metadata) {
	c.Epsilon = float32(m.number("attention.layer_norm_rms_epsilon", required, 0, 1))
	if m.err != nil {
		return
	}
	c.AttentionScale = float32(m.number("attention.scale", 0, 0, 1e6))
	if c.AttentionScale == 0 { // some files say 0 for the usual
		c.AttentionScale = float32(1 / math.Sqrt(float64(c.usualScoreDim())))
	}
	window, period := c.usualWindow()
	c.Window = m.integer("attention.sliding_window", window, 0, 1<<31-1)
	if c.Window == 0 || m.err != nil {
		c.Window = 0
		return
	}
	c.Sliding = make([]bool, c.Layers)
	pattern := m.key("attention.sliding_window_pattern")
	if listed, ok := m.file.Bools(pattern); ok {
		if len(listed) != c.Layers {
			m.fail("%s has %d entries for %d layers", pattern, len(listed), c.Layers)
			return
		}
		copy(c.Sliding, listed)
	} else {
		period = m.integer("attention.sliding_window_pattern", period, 0, MaxLayers)
		for l := range c.Sliding {
			c.Sliding[l] = period == 0 || (l+1)%period != 0
		}
	}
	if !slices.Contains(c.Sliding, true) {
		c.Window = 0
	}
}

// usualScoreDim is the width whose root divides the scores: a head's, except in the 27B Gemmas, which no key tells from
// the others, but their number of layers does.
func (c *Config) usualScoreDim() int {
	if c.Architecture == "gemma2" && c.Layers == 46 || c.Architecture == "gemma3" && c.Layers == 62 {
		return max(1, c.Hidden/c.Heads)
	}
	return c.HeadDim
}

// usualWindow is the window where no key gives one (0: none), and how often a layer is full: one in period, the last of
// them; 0: never.
func (c *Config) usualWindow() (window, period int) {
	switch c.Architecture {
	case "gemma2":
		return 4096, 2
	case "gemma3":
		return 0, 6
	case "olmo2":
		return 0, 4
	}
	return 0, 0
}

func (c *Config) readRope(m *metadata) {
	r := &c.Rope
	if m.err != nil {
		return
	}
	r.Dims = m.integer("rope.dimension_count", c.HeadDim, 1, MaxHeadDim)
	if r.Dims%2 != 0 || r.Dims > c.HeadDim {
		m.fail("%s is %d: it must be even and at most the %d elements of a head", m.key("rope.dimension_count"), r.Dims, c.HeadDim)
	}
	base := m.number("rope.freq_base", 10000, 1, 1e15)
	r.Base = base
	if c.Architecture == "gemma3" {
		base = 10000 // of the layers that slide, whatever the others have
	}
	r.SlidingBase = m.number("rope.freq_base_swa", base, 1, 1e15)
	_, r.Factors = m.file.Tensor(ropeFactors)
	c.readRopeScaling(m)
}

func (c *Config) readRopeScaling(m *metadata) {
	s := &c.Rope.Scaling
	s.Magnitude = m.number("rope.scaling.attn_factor", 1, 0.001, 1e3)
	s.Factor = m.number("rope.scaling.factor", m.number("rope.scale_linear", 0, 0, 1e6), 0, 1e6)
	kind, named := m.file.String(m.key("rope.scaling.type"))
	if !named && m.file.Has(m.key("rope.scaling.type")) {
		m.fail("the key %s must be a string, but is %s", m.key("rope.scaling.type"), m.file.Kind(m.key("rope.scaling.type")))
	}
	switch {
	case !named && s.Factor > 0 && s.Factor != 1, kind == "linear":
		s.Kind = LinearScaling
	case !named || kind == "none" || kind == "":
		s.Factor = 1
		return
	case kind == "yarn":
		s.Kind = YarnScaling
	default:
		m.fail("RoPE scaling of the kind %.100q is not supported: Daisy knows linear and yarn, and the tensor %s", kind, ropeFactors)
		return
	}
	if s.Factor == 0 {
		s.Factor = 1 // some files say 0 for none
	}
	if s.Factor < 0.01 {
		m.fail("%s is %v: it must be at least 0.01", m.key("rope.scaling.factor"), s.Factor)
	}
	if s.Kind == LinearScaling {
		return
	}
	s.OriginalContext = m.integer("rope.scaling.original_context_length", c.Context, 1, MaxContext)
	s.BetaFast = m.number("rope.scaling.yarn_beta_fast", 32, 0.001, 1e6)
	s.BetaSlow = m.number("rope.scaling.yarn_beta_slow", 1, 0.001, 1e6)
	// The paper's magnitude, which a model may replace by its own.
	magnitude := 1.0
	if s.Factor > 1 {
		magnitude += float64(0.1 * float64(kernel.Log(float32(s.Factor)))) // no FMA: the same bits everywhere
	}
	s.Magnitude *= m.number("rope.scaling.yarn_attn_factor", magnitude, 0.001, 1e3)
	if mix := m.number("rope.scaling.yarn_ext_factor", 1, -1, 1e3); mix != 1 && mix != -1 {
		m.fail("%s is %v: only 1 is supported", m.key("rope.scaling.yarn_ext_factor"), mix)
	}
	if log := m.number("rope.scaling.yarn_log_multiplier", 0, -1e3, 1e3); log != 0 {
		m.fail("%s is %v: it is not supported", m.key("rope.scaling.yarn_log_multiplier"), log)
	}
}
