package trust

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

// Through days, failures and clocks that go wrong, a certificate is renewed at two thirds of its life.
func TestRenewalInTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		log := &logged{}
		a, _, err := MakeAuthority(t.Context(), dir, AuthorityConfig{Life: 3 * time.Hour, Log: slog.New(slog.NewTextHandler(log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		i, err := a.Identity("c1", nil)
		if err != nil {
			t.Fatal(err)
		}
		var down atomic.Bool
		var attempts atomic.Int64
		renew := i.renew
		i.renew = func(ctx context.Context, c *credential) (*credential, error) {
			attempts.Add(1)
			if down.Load() {
				return nil, errors.New("it rains")
			}
			return renew(ctx, c)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- i.Run(ctx) }()

		left := func() time.Duration { return time.Until(i.Expires()).Round(time.Minute) }
		time.Sleep(time.Hour + 59*time.Minute)
		if synctest.Wait(); attempts.Load() != 0 {
			t.Errorf("renewed %d times before its time", attempts.Load())
		}
		time.Sleep(2 * time.Minute)
		if synctest.Wait(); attempts.Load() != 1 || left() != 3*time.Hour-time.Minute {
			t.Errorf("renewed %d times, %v left", attempts.Load(), left())
		}
		time.Sleep(10 * 24 * time.Hour)
		if synctest.Wait(); attempts.Load() != 121 || left() < time.Hour {
			t.Errorf("renewed %d times in ten days, %v left", attempts.Load(), left())
		}

		down.Store(true)
		time.Sleep(4 * time.Hour)
		if synctest.Wait(); left() > 0 {
			t.Errorf("%v left", left())
		}
		for _, text := range []string{"cannot be renewed yet", "has expired"} {
			if strings.Count(log.String(), text) != 1 {
				t.Errorf("%q is not logged once:\n%s", text, log)
			}
		}
		down.Store(false)
		time.Sleep(2 * time.Minute)
		if synctest.Wait(); left() < time.Hour {
			t.Errorf("%v left after the authority has come back", left())
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// A member renews over the network: from coordinators that it has heard of, with what it keeps, and, once it is too late for
// that, with a token that still counts.
func TestRenewalOverTheNetwork(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	token := s.token(plan.Shard, 100*time.Hour)
	member := s.mustEnter(func(c *MemberConfig) {
		c.Dir, c.Token = dir, token
		c.Coordinators = func() []string { return []string{"127.0.0.1:1", s.address} }
	})
	renew := func() error {
		fresh, err := member.renew(t.Context(), member.current.Load())
		if err == nil {
			member.current.Store(fresh)
		}
		return err
	}
	first := member.current.Load()
	s.clock.pass(16 * time.Hour)
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	second := member.current.Load()
	if !second.leaf.NotAfter.After(first.leaf.NotAfter) || second.key.Equal(first.key) || second.peer != first.peer {
		t.Errorf("from %v until %v to %v until %v", first.peer, first.leaf.NotAfter, second.peer, second.leaf.NotAfter)
	}
	if kept, err := load(folder(dir), s.clock.now()); err != nil || !kept.leaf.Equal(second.leaf) {
		t.Errorf("the folder has another: %v", err)
	}
	s.clock.pass(25 * time.Hour)
	s = openSite(t, s.dir, s.clock)
	if err := renew(); err != nil {
		t.Errorf("with a token, after the end: %v", err)
	}
	if err := s.Revoke(token.ID()); err != nil {
		t.Fatal(err)
	}
	s.clock.pass(25 * time.Hour)
	s = openSite(t, s.dir, s.clock)
	if err := renew(); err == nil {
		t.Error("an expired certificate and a revoked token were enough")
	}
}
