package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/daisy-llm/daisy/model/gguf"
	"github.com/daisy-llm/daisy/model/kernel"
)

// synthOptions are the flags of `bench synth`.
type synthOptions struct {
	Like  string
	Type  string
	Seed  uint64
	Force bool
}

func newSynthCommand(c *cli) *cobra.Command {
	var o synthOptions
	cmd := &cobra.Command{
		Use:   "synth OUT.gguf",
		Short: "Write a model of random weights, with the shape of a real one, to be measured",
		Long: `Write a GGUF file of random weights with the shape of a real model, so that a size can be measured that nobody has here. Its
text is gibberish. llama.cpp reads it as well. The same flags give the same file. Its name is printed once it is complete.

Shapes:
` + synthShapesText(),
		Example: "  daisy bench synth --like 7b --type q4_k out.gguf",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			shape, err := synthShapeOf(o.Like)
			if err != nil {
				return err
			}
			weights, err := synthType(o.Type)
			if err != nil {
				return err
			}
			m := synthModel{synthShape: shape, weights: weights, seed: o.Seed}
			bar := newProgress(c.console)
			err = m.writeFile(cmd.Context(), args[0], o.Force, bar.set)
			bar.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, args[0])
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Like, "like", "1b", "the `SHAPE` to take")
	f.StringVar(&o.Type, "type", "q4_0", "how weights are stored: "+strings.Join(typeNames(synthTypes()), ", "))
	f.Uint64Var(&o.Seed, "seed", 0, "of the random weights")
	f.BoolVar(&o.Force, "force", false, "overwrite the file if it exists")
	return cmd
}

// synthTypes are the tensor types that weights can be made in.
func synthTypes() []gguf.Type {
	return []gguf.Type{gguf.F32, gguf.F16, gguf.BF16, gguf.Q8_0, gguf.Q4_0, gguf.Q4_1, gguf.Q5_0, gguf.Q4_K, gguf.Q5_K, gguf.Q6_K}
}

func typeNames(types []gguf.Type) (names []string) {
	for _, t := range types {
		names = append(names, t.String())
	}
	return names
}

func synthType(name string) (gguf.Type, error) {
	for _, t := range synthTypes() {
		if strings.EqualFold(t.String(), name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("--type %q is not known: use one of %s", name, strings.Join(typeNames(synthTypes()), ", "))
}

// synthModel is a model to write.
type synthModel struct {
	synthShape
	weights gguf.Type
	seed    uint64
}

// writeFile writes to a file beside it first: what is there at the end is whole.
func (m *synthModel) writeFile(ctx context.Context, path string, force bool, progress func(done, total int64)) (err error) {
	if info, err := os.Lstat(path); err == nil {
		switch {
		case !force:
			return fmt.Errorf("%s exists already: choose another name, or overwrite it with --force", path)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no regular file", path)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write a model: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.partial")
	if err != nil {
		return fmt.Errorf("write a model: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := m.write(ctx, f, progress); err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, withoutPath(err))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// withoutPath drops the name of the temporary file, which says nothing to anyone.
func withoutPath(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// write streams the model: no more than a piece of a tensor is in memory.
func (m *synthModel) write(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	tensors := m.tensors()
	if err := m.check(tensors); err != nil {
		return err
	}
	var done, total int64
	for i := range tensors {
		total += tensorBytes(&tensors[i])
	}
	return gguf.Stream(w, m.metadata(), tensors, func(w io.Writer, t *gguf.Tensor) error {
		return m.fill(w, t, func(n int) error {
			done += int64(n)
			progress(done, total)
			return context.Cause(ctx)
		})
	})
}

// check refuses a type whose blocks do not divide the rows.
func (m *synthModel) check(tensors []gguf.Tensor) error {
	for i := range tensors {
		t := &tensors[i]
		if elements, _ := t.Type.Block(); t.Cols()%elements != 0 {
			return fmt.Errorf("%v has blocks of %d weights, which do not divide the %d of a row of %s: choose another --type or --like",
				t.Type, elements, t.Cols(), t.Name)
		}
	}
	return nil
}

func tensorBytes(t *gguf.Tensor) int64 {
	elements, bytes := t.Type.Block()
	return int64(t.Cols()/elements) * int64(t.Rows()) * int64(bytes)
}

// fill makes a tensor: norms are all ones, everything else is random, keyed by the seed and the tensor's name.
func (m *synthModel) fill(w io.Writer, t *gguf.Tensor, wrote func(n int) error) error {
	size := tensorBytes(t)
	if len(t.Dims) == 1 {
		ones := make([]byte, 0, size)
		for range t.Cols() {
			ones = binary.LittleEndian.AppendUint32(ones, math.Float32bits(1))
		}
		if _, err := w.Write(ones); err != nil {
			return err
		}
		return wrote(len(ones))
	}
	source := rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%d %s", m.seed, t.Name)))
	_, block := t.Type.Block()
	piece := make([]byte, (1<<20)/block*block)
	shape := newBlockShaper(t.Type, t.Cols())
	for left := size; left > 0; {
		piece = piece[:min(int64(len(piece)), left)]
		_, _ = source.Read(piece) // never fails
		shape.all(piece)
		if _, err := w.Write(piece); err != nil {
			return err
		}
		left -= int64(len(piece))
		if err := wrote(len(piece)); err != nil {
			return err
		}
	}
	return nil
}

// blockShaper turns blocks of random bytes into weights whose mean is about 0 and whose variance is about 1/cols, so that
// products keep the magnitude of their input and all logits are finite.
type blockShaper struct {
	block  int
	halves []halfAt // in blocks
	keep   uint32   // in plain numbers: the random bits to keep, sign and fraction
	set    uint32   // and their exponent
}

// halfAt is a float16 in a block.
type halfAt struct {
	offset int
	bits   uint16
}

func newBlockShaper(t gguf.Type, cols int) *blockShaper {
	_, block := t.Block()
	s := &blockShaper{block: block}
	sigma := 1 / math.Sqrt(float64(cols))
	scale := func(offset int, value float64) { s.halves = append(s.halves, halfAt{offset, halfOf(value)}) }
	// A number of one exponent and random fraction is between 1 and 2 times its power of two; the root of its mean square
	// is 1.53 times.
	exponent := int(math.Round(math.Log2(sigma / 1.53)))
	// Integers of n bits have a standard deviation of 2^n / sqrt(12), their scales of 6 bits one of 18.2 around 31.5.
	switch t {
	case gguf.F32:
		s.keep, s.set = 0x807fffff, uint32(exponent+127)<<23
	case gguf.BF16:
		s.keep, s.set = 0x807f807f, uint32(exponent+127)<<23|uint32(exponent+127)<<7
	case gguf.F16:
		s.keep, s.set = 0x83ff83ff, uint32(exponent+15)<<26|uint32(exponent+15)<<10
	case gguf.Q8_0:
		scale(0, sigma/73.9)
	case gguf.Q4_0:
		scale(0, sigma/4.6)
	case gguf.Q4_1:
		scale(0, sigma/4.6)
		scale(2, -7.5*sigma/4.6)
	case gguf.Q5_0:
		scale(0, sigma/9.2)
	case gguf.Q4_K:
		scale(0, sigma/256)
		scale(2, 7.5*sigma/256)
	case gguf.Q5_K:
		scale(0, sigma/522)
		scale(2, 15.5*sigma/522)
	case gguf.Q6_K:
		scale(208, sigma/1367) // sixteen scales of 8 bits with a sign
	}
	return s
}

// all shapes whole blocks in place.
func (s *blockShaper) all(b []byte) {
	if s.keep != 0 {
		for i := 0; i+4 <= len(b); i += 4 {
			binary.LittleEndian.PutUint32(b[i:], binary.LittleEndian.Uint32(b[i:])&s.keep|s.set)
		}
		if rest := len(b) % 4; rest == 2 {
			i := len(b) - 2
			binary.LittleEndian.PutUint16(b[i:], binary.LittleEndian.Uint16(b[i:])&uint16(s.keep)|uint16(s.set))
		}
		return
	}
	for ; len(b) > 0; b = b[s.block:] {
		for _, h := range s.halves {
			binary.LittleEndian.PutUint16(b[h.offset:], h.bits)
		}
	}
}

// halfOf rounds to a float16.
func halfOf(value float64) uint16 {
	var h [1]uint16
	kernel.Sets()[0].FloatsToHalves(h[:], []float32{float32(value)})
	return h[0]
}
