package coordinator

import (
	"slices"
	"testing"

	"github.com/daisy-llm/daisy/coordinator/pipeline"
	"github.com/daisy-llm/daisy/model"
	"github.com/daisy-llm/daisy/model/token"
	"github.com/daisy-llm/daisy/pass"
)

func span(first, last model.LayerIndex, positions token.Position) pass.Span {
	return pass.Span{Layers: model.Layers{First: first, Last: last}, Positions: positions}
}

// TestRemains: which layers are filled in, from where, and in what order, before ordinary passes go on.
func TestRemains(t *testing.T) {
	blocks := []model.Layers{{First: 0, Last: 4}, {First: 4, Last: 8}, {First: 8, Last: 12}}
	type step struct {
		from, to token.Position
		fills    []fill
	}
	layers := func(first, last model.LayerIndex) model.Layers { return model.Layers{First: first, Last: last} }
	for name, c := range map[string]struct {
		begun []pass.Begun
		steps []step
		goOn  token.Position
	}{
		"nothing is there": {[]pass.Begun{{Cached: []pass.Span{span(0, 4, 0)}}, {Cached: []pass.Span{span(4, 8, 0)}}, {Cached: []pass.Span{span(8, 12, 0)}}}, nil, 0},
		"all is there":     {[]pass.Begun{{Cached: []pass.Span{span(0, 4, 9)}}, {Cached: []pass.Span{span(4, 8, 9)}}, {Cached: []pass.Span{span(8, 12, 9)}}}, nil, 9},
		"the middle is lost": {[]pass.Begun{
			{Cached: []pass.Span{span(0, 4, 9)}, Logs: []pass.Log{{Before: 4, Positions: 9}}}, {Cached: []pass.Span{span(4, 8, 0)}}, {Cached: []pass.Span{span(8, 12, 9)}}},
			[]step{{0, 9, []fill{{layers(4, 8), 0}}}}, 9},
		"its neighbours share it": {[]pass.Begun{
			{Cached: []pass.Span{span(0, 2, 9), span(2, 4, 0)}, Logs: []pass.Log{{Before: 2, Positions: 9}}},
			{Cached: []pass.Span{span(4, 6, 0), span(6, 8, 9)}, Logs: []pass.Log{{Before: 8, Positions: 9}}}, {Cached: []pass.Span{span(8, 12, 9)}}},
			[]step{{0, 9, []fill{{layers(2, 6), 0}}}}, 9},
		"the first is lost": {[]pass.Begun{{Cached: []pass.Span{span(0, 4, 0)}}, {Cached: []pass.Span{span(4, 8, 9)}}, {Cached: []pass.Span{span(8, 12, 9)}}},
			[]step{{0, 9, []fill{{layers(0, 4), 0}}}}, 9},
		"chunks were on their way": {[]pass.Begun{
			{Cached: []pass.Span{span(0, 4, 9)}, Logs: []pass.Log{{Before: 4, Positions: 9}}}, {Cached: []pass.Span{span(4, 8, 0)}}, {Cached: []pass.Span{span(8, 12, 5)}}},
			[]step{{0, 5, []fill{{layers(4, 8), 0}}}, {5, 9, []fill{{layers(4, 12), 0}}}}, 9},
		"two are lost": {[]pass.Begun{{Cached: []pass.Span{span(0, 4, 0)}}, {Cached: []pass.Span{span(4, 8, 9)}, Logs: []pass.Log{{Before: 8, Positions: 9}}}, {Cached: []pass.Span{span(8, 12, 0)}}},
			[]step{{0, 9, []fill{{layers(0, 4), 0}, {layers(8, 12), 1}}}}, 9},
		"the log is too short": {[]pass.Begun{
			{Cached: []pass.Span{span(0, 4, 9)}, Logs: []pass.Log{{Before: 4, Positions: 8}}}, {Cached: []pass.Span{span(4, 8, 0)}}, {Cached: []pass.Span{span(8, 12, 9)}}},
			nil, 0},
		"a stage tells nonsense": {[]pass.Begun{
			{Cached: []pass.Span{span(0, 4, 9)}, Logs: []pass.Log{{Before: 4, Positions: 1 << 30}, {Before: 99, Positions: 9}}},
			{Cached: []pass.Span{span(5, 7, 9)}}, {Cached: []pass.Span{span(8, 12, 1<<30)}}},
			[]step{{0, 9, []fill{{layers(4, 8), 0}}}}, 9},
	} {
		r := remainsOf(blocks, c.begun, 9)
		for i := 0; ; i++ {
			from, to, fills := r.step()
			if len(fills) == 0 {
				if i != len(c.steps) || from != c.goOn {
					t.Errorf("%s: after %d steps it goes on at %d, want %d after %d", name, i, from, c.goOn, len(c.steps))
				}
				break
			}
			if i >= len(c.steps) || from != c.steps[i].from || to != c.steps[i].to || !slices.Equal(fills, c.steps[i].fills) {
				t.Errorf("%s: step %d fills in %v from %d to %d, want %+v", name, i, fills, from, to, c.steps)
				break
			}
			r.filled(to, fills)
		}
	}
}

// TestLosses: what means another epoch, and what the end.
func TestLosses(t *testing.T) {
	for reason, loss := range map[pass.Reason]bool{
		pass.ReasonNoSequence: true, pass.ReasonPlan: true, pass.ReasonStaleEpoch: true, pass.ReasonGap: true,
		pass.ReasonFault: false, pass.ReasonBadRequest: false, pass.ReasonCacheFull: false,
	} {
		if isLoss(&pass.Refusal{Reason: reason}) != loss {
			t.Errorf("a refusal for %s: a loss %t, want %t", reason, !loss, loss)
		}
	}
	if !isLoss(pipeline.ErrBroken) || !isLoss(&beginError{pipeline.ErrMemory}) {
		t.Error("a pipeline that broke, or an epoch that was not begun, are no losses")
	}
}
