package trust

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
)

const (
	tokenPrefix   = "daisy_"
	tokenVersion  = 1
	tokenIDBytes  = 6
	secretBytes   = 16 // far too many to guess: a plain hash hides them
	checksumBytes = 4
	maxTokenText  = 256
)

// A Token lets whoever has it become a member, as long as the authority that made it agrees. It also says which authority that
// is, so that its secret reaches nobody else.
type Token struct {
	id        [tokenIDBytes]byte
	secret    [secretBytes]byte
	authority Fingerprint
}

func newToken(authority Fingerprint) Token {
	t := Token{authority: authority}
	rand.Read(t.id[:]) // never fails
	rand.Read(t.secret[:])
	return t
}

// ID names the token; it is no secret.
func (t Token) ID() string { return hex.EncodeToString(t.id[:]) }

// Authority is the one that the token is for.
func (t Token) Authority() Fingerprint { return t.authority }

// IsZero says whether there is no token.
func (t Token) IsZero() bool { return t == Token{} }

// String keeps the secret out of what prints tokens by accident: Reveal says it.
func (t Token) String() string { return "token " + t.ID() }

// GoString does the same for %#v.
func (t Token) GoString() string { return t.String() }

// LogValue does the same for logs.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.ID()) }

// Reveal writes the token out, secret and all. A checksum at its end tells a slip of the pen from a wrong token.
func (t Token) Reveal() string {
	b := []byte{tokenVersion}
	b = append(b, t.id[:]...)
	b = append(b, t.secret[:]...)
	b = append(b, t.authority[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseToken reads what Reveal has written. Its errors repeat nothing of the text.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > maxTokenText {
		return Token{}, fmt.Errorf("this is not a token: one begins with %s", tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	const size = 1 + tokenIDBytes + secretBytes + len(Fingerprint{}) + checksumBytes
	switch {
	case err == nil && len(b) > 0 && b[0] != tokenVersion:
		return Token{}, errors.New("the token is of another version of Daisy: run the same version everywhere")
	case err != nil, strings.ContainsAny(text, "\r\n"), len(b) != size, binary.BigEndian.Uint32(b[size-checksumBytes:]) != crc32.ChecksumIEEE(b[:size-checksumBytes]):
		return Token{}, errors.New("the token is damaged or cut off: copy all of it")
	}
	var t Token
	b = b[1:]
	b = b[copy(t.id[:], b):]
	b = b[copy(t.secret[:], b):]
	copy(t.authority[:], b)
	return t, nil
}
