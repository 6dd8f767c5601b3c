package gateway

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"

	"github.com/daisy-llm/daisy/pass"
)

type modelEntry struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Context int    `json:"max_model_len"` // vLLM's name
}

func (g *Gateway) modelEntry(name string) modelEntry {
	return modelEntry{ID: name, Object: "model", Created: g.cfg.Created.Unix(), OwnedBy: "daisy", Context: g.cfg.Context}
}

// serves says whether a request may call the model by this name.
func (g *Gateway) serves(name string) bool {
	return name == g.cfg.ModelName || slices.Contains(g.cfg.Aliases, name)
}

func (g *Gateway) models(w http.ResponseWriter, _ *http.Request) {
	list := struct {
		Object string       `json:"object"`
		Data   []modelEntry `json:"data"`
	}{Object: "list", Data: []modelEntry{g.modelEntry(g.cfg.ModelName)}}
	for _, name := range g.cfg.Aliases {
		if name != g.cfg.ModelName {
			list.Data = append(list.Data, g.modelEntry(name))
		}
	}
	writeJSON(w, http.StatusOK, encode(list))
}

func (g *Gateway) model(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("id")
	if !g.serves(name) {
		g.unknownModel(name).write(w)
		return
	}
	writeJSON(w, http.StatusOK, encode(g.modelEntry(name)))
}

// fingerprint names what, beside the request, an answer is a function of: equal fingerprints and seeds promise equal
// answers.
func (g *Gateway) fingerprint() string {
	s := g.cfg.Engine.Status()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %d", s.SHA256, g.cfg.Context, s.CacheType, pass.Numerics))
	return "fp_" + hex.EncodeToString(sum[:6])
}
