package trust

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/daisy-llm/daisy/coordinator/plan"
)

const (
	tokensFile = "tokens.json"
	tokensLock = "tokens.lock"

	maxTokens = 1024
	maxLife   = 10 * 365 * 24 * time.Hour

	// kept is how long tokens that no longer count are listed, and told from those that never were.
	kept = 7 * 24 * time.Hour
)

// A TokenEntry is what an authority keeps of a token that it has made.
type TokenEntry struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	Hash    []byte    `json:"hash"` // SHA-256 of the secret
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked,omitempty"`
}

// Why a token is refused.
var (
	errTokenUnknown = errors.New("the token is not known to this cluster")
	errTokenExpired = errors.New("the token has expired: make another with daisy token create")
	errTokenRevoked = errors.New("the token was revoked")
)

// State says whether the token still counts: valid, expired or revoked.
func (e *TokenEntry) State(now time.Time) string {
	switch e.refusal(now) {
	case nil:
		return "valid"
	case errTokenRevoked:
		return "revoked"
	}
	return "expired"
}

func (e *TokenEntry) refusal(now time.Time) error {
	switch {
	case e.Revoked:
		return errTokenRevoked
	case !now.Before(e.Expires):
		return errTokenExpired
	}
	return nil
}

// CreateToken makes a token that lets processes in, in one role, for as long as it lives.
func (a *Authority) CreateToken(role plan.Role, life time.Duration) (Token, error) {
	if life <= 0 || life > maxLife {
		return Token{}, fmt.Errorf("a token that lives for %v: say how long, at most ten years", life)
	}
	t := newToken(a.fingerprint)
	hash := sha256.Sum256(t.secret[:])
	now := a.now().UTC().Truncate(time.Second)
	err := a.change(func(entries []TokenEntry) ([]TokenEntry, error) {
		if len(entries) >= maxTokens {
			return nil, fmt.Errorf("there are %d tokens already: revoke some", len(entries))
		}
		return append(entries, TokenEntry{ID: t.ID(), Role: role.String(), Hash: hash[:], Created: now, Expires: now.Add(life)}), nil
	})
	if err != nil {
		return Token{}, fmt.Errorf("make a token: %w", err)
	}
	return t, nil
}

// Revoke makes a token worthless at once, also to processes that have the authority open. Who has joined with it stays.
func (a *Authority) Revoke(id string) error {
	err := a.change(func(entries []TokenEntry) ([]TokenEntry, error) {
		i := slices.IndexFunc(entries, func(e TokenEntry) bool { return e.ID == id })
		if i < 0 {
			return nil, errors.New("there is none of that id: see daisy token list")
		}
		entries[i].Revoked = true
		return entries, nil
	})
	if err != nil {
		return fmt.Errorf("revoke token %q: %w", clip(id), err)
	}
	return nil
}

// Tokens are those that were made, oldest first, without those that stopped counting long ago.
func (a *Authority) Tokens() ([]TokenEntry, error) {
	raw, err := a.dir.read(tokensFile)
	if missing(err) {
		return nil, nil
	}
	var entries []TokenEntry
	if err == nil {
		err = json.Unmarshal(raw, &entries)
	}
	if err != nil {
		return nil, fmt.Errorf("read the tokens in %s: %w", a.dir, err)
	}
	now := a.now()
	return slices.DeleteFunc(entries, func(e TokenEntry) bool { return now.Sub(e.Expires) > kept }), nil
}

// change rewrites the list, one process at a time.
func (a *Authority) change(with func([]TokenEntry) ([]TokenEntry, error)) error {
	unlock, err := a.dir.lock(context.Background(), tokensLock)
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := a.Tokens()
	if err != nil {
		return err
	}
	if entries, err = with(entries); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return err
	}
	return a.dir.write(tokensFile, append(raw, '\n'))
}

// redeem says what role a token gives. Whoever does not know its secret does not learn what became of it.
func (a *Authority) redeem(t Token) (plan.Role, error) {
	entries, err := a.Tokens()
	if err != nil {
		return 0, err
	}
	hash := sha256.Sum256(t.secret[:])
	id := t.ID()
	for _, e := range entries {
		if e.ID != id || subtle.ConstantTimeCompare(e.Hash, hash[:]) != 1 {
			continue
		}
		if err := e.refusal(a.now()); err != nil {
			return 0, err
		}
		return ParseRole(e.Role)
	}
	return 0, errTokenUnknown
}
