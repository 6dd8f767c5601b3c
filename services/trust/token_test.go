package trust

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

func TestTokenText(t *testing.T) {
	token := newToken(Fingerprint{1, 2, 3})
	text := token.Reveal()
	if again, err := ParseToken(" " + text + "\n"); err != nil || again != token {
		t.Errorf("%v, %v", again, err)
	}
	for i := range len(text) {
		for _, damaged := range []string{text[:i], text[:i] + text[i+1:], text[:i] + "." + text[i+1:]} {
			if _, err := ParseToken(damaged); err == nil {
				t.Errorf("%q was taken", damaged)
			}
		}
	}
	secret := strings.TrimPrefix(text, tokenPrefix)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("a", "token", token)
	for _, said := range []string{fmt.Sprint(token), fmt.Sprintf("%v %+v %#v %s", token, token, token, token), log.String()} {
		if strings.Contains(said, secret) || strings.Contains(said, fmt.Sprint(token.secret)) || !strings.Contains(said, token.ID()) {
			t.Errorf("by accident it says %q", said)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(newToken(Fingerprint{7}).Reveal())
	f.Add(tokenPrefix)
	f.Add(tokenPrefix + strings.Repeat("A", 79))
	f.Add("daisy_AWhpp-4rsbmvWG-oqL5wSSMXxBKYBQgHAAAAAAAA\r\r\r\r\r\r\rAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAALdebZw") // base64 skips line breaks
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Reveal() != strings.TrimSpace(text) {
			t.Errorf("%q reads as %q", text, token.Reveal())
		}
		if err != nil && len(text) > 40 && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats the token: %v", err)
		}
	})
}

func TestTokensAreKept(t *testing.T) {
	s := newSite(t)
	short, long := s.token(plan.Shard, time.Minute), s.token(plan.Coordinator, time.Hour)
	other, err := OpenAuthority(s.dir, AuthorityConfig{Now: s.clock.now}) // as daisy token has it
	if err != nil {
		t.Fatal(err)
	}
	states := func() string {
		entries, err := other.Tokens()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range entries {
			all = append(all, e.Role+" "+e.State(s.clock.now()))
		}
		return strings.Join(all, ", ")
	}
	if got := states(); got != "shard valid, coordinator valid" {
		t.Error(got)
	}
	if err := other.Revoke(long.ID()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.redeem(long); err != errTokenRevoked { // the process that serves has heard of it
		t.Error(err)
	}
	s.clock.pass(time.Minute)
	if got := states(); got != "shard expired, coordinator revoked" {
		t.Error(got)
	}
	if err := other.Revoke("000000000000"); err == nil || !strings.Contains(err.Error(), "daisy token list") {
		t.Error(err)
	}
	for _, life := range []time.Duration{0, -1, maxLife + 1} {
		if _, err := s.CreateToken(plan.Shard, life); err == nil {
			t.Errorf("a token for %v was made", life)
		}
	}
	s.clock.pass(kept + time.Hour)
	if got := states(); got != "" {
		t.Errorf("long after: %s", got)
	}
	if _, err := s.redeem(short); err != errTokenUnknown {
		t.Error(err)
	}
	err = s.change(func([]TokenEntry) ([]TokenEntry, error) {
		return slices.Repeat([]TokenEntry{{ID: "x", Expires: s.clock.now()}}, maxTokens), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateToken(plan.Shard, time.Hour); err == nil || !strings.Contains(err.Error(), "revoke some") {
		t.Errorf("beyond the limit: %v", err)
	}
}
