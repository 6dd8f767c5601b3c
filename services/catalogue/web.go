package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	connectTimeout = 5 * time.Second  // to find and reach a server, and again to agree on encryption
	answerTimeout  = 10 * time.Second // from the request to the first byte
	maxRedirects   = 10
	stallTimeout   = 10 * time.Second // without a byte, and the connection counts as lost
	maxAttempts    = 5                // of one source whose connection breaks in mid-file
	worthResuming  = 1 << 20          // bytes that a stalled connection must have brought for another attempt
)

// newClient is strict where http.DefaultClient is patient: an unreachable source has to give way to the next at once.
func newClient(proxy func(*http.Request) (*url.URL, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 proxy,
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: answerTimeout,
			DisableKeepAlives:     true, // one request a file: idle connections would only linger
		},
		CheckRedirect: checkRedirect,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if first.URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("it redirects away from https")
	}
	// net/http keeps the token for subdomains; it is meant for the first host only.
	if req.URL.Host != first.URL.Host || req.URL.Scheme != first.URL.Scheme {
		req.Header.Del("Authorization")
	}
	return nil
}

// webSource is a file on a web server.
type webSource struct{ url *url.URL }

func (w webSource) String() string { return w.url.String() }
func (w webSource) name() string   { return baseName(w.url.Path) }

func (w webSource) fetch(ctx context.Context, s *Store, p *partial) error {
	return s.download(ctx, w.url, "", p)
}

// hubSource is a file in a model repository of the Hugging Face hub.
type hubSource struct{ org, repo, revision, path string }

func (h hubSource) String() string {
	return fmt.Sprintf("hf:%s/%s@%s/%s", h.org, h.repo, h.revision, h.path)
}

func (h hubSource) name() string { return baseName(h.path) }

func (h hubSource) fetch(ctx context.Context, s *Store, p *partial) error {
	endpoint, err := url.Parse(s.config.HFEndpoint)
	if err != nil {
		return err
	}
	path := (&url.URL{Path: h.path}).EscapedPath() // JoinPath takes it escaped
	err = s.download(ctx, endpoint.JoinPath(h.org, h.repo, "resolve", h.revision, path), s.config.HFToken, p)
	var status statusError
	if errors.As(err, &status) && (status == http.StatusUnauthorized || status == http.StatusForbidden) {
		return fmt.Errorf("%w: the model may ask for consent on its page, and for a token in HF_TOKEN", err)
	}
	return err
}

// statusError is an answer that is not the file.
type statusError int

func (s statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answers %d %s", int(s), http.StatusText(int(s))))
}

// lostError is a connection that broke in mid-file: worth another attempt.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// errStalled is the reason of a connection that was lost because nothing came any more.
var errStalled = errors.New("nothing came")

// download fetches what p still lacks. A connection that breaks after it brought something is taken up again, but not
// one that stalls after next to nothing: such a server would stall again, for as long.
func (s *Store) download(ctx context.Context, from *url.URL, token string, p *partial) error {
	validator := "" // of the file that p holds the beginning of; empty at first, or if the server gives none
	for attempt := 1; ; attempt++ {
		received, err := s.get(ctx, from, token, p, &validator)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		stalled := errors.Is(err, errStalled) && received < worthResuming
		if !errors.As(err, new(lostError)) || received == 0 || stalled || attempt == maxAttempts {
			return err
		}
		p.progress.Note(fmt.Sprintf("%v after %d bytes: resuming", err, p.done))
	}
}

// get makes one request. received counts the bytes it brought.
func (s *Store) get(ctx context.Context, from *url.URL, token string, p *partial, validator *string) (received int64, err error) {
	if p.total > 0 && p.done == p.total {
		return 0, nil
	}
	if p.done > 0 && p.want.sha256 == "" && *validator == "" {
		// Nothing would tell whether the rest belongs to the same file.
		if err := p.reset(); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("User-Agent", "daisy")
	req.Header.Set("Accept-Encoding", "identity") // lengths and ranges are those of the file itself
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if p.done > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", p.done))
		if *validator != "" {
			req.Header.Set("If-Range", *validator)
		}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var urlErr *url.Error
		if errors.As(err, &urlErr) {
			err = urlErr.Err // the URL may be a redirect's, with a signature in it
		}
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.done > 0 {
		// The file there is shorter than what we have: whatever that is, it is not the file's beginning.
		if err := p.reset(); err != nil {
			return 0, err
		}
		return s.get(ctx, from, token, p, validator)
	}
	if err := begin(resp, p); err != nil {
		return 0, err
	}
	*validator = validatorOf(resp)

	lost := fmt.Errorf("%w for %v", errStalled, s.stall)
	watchdog := time.AfterFunc(s.stall, func() { cancel(lost) })
	defer watchdog.Stop()
	before := p.done
	_, err = io.CopyBuffer(p, watchedReader{resp.Body, watchdog, s.stall}, make([]byte, 256<<10))
	received = p.done - before
	var broken readError
	switch {
	case errors.As(err, &broken) && context.Cause(ctx) != nil:
		return received, lostError{context.Cause(ctx)}
	case errors.As(err, &broken):
		return received, lostError{fmt.Errorf("the connection was lost (%w)", broken.error)}
	case err != nil:
		return received, err
	case p.total > 0 && p.done < p.total:
		return received, lostError{fmt.Errorf("the connection ended at %d of %d bytes", p.done, p.total)}
	}
	p.total = p.done
	return received, nil
}

// begin checks that the answer goes on where p stands, or lets p start over if the server begins at the beginning.
func begin(resp *http.Response, p *partial) error {
	switch resp.StatusCode {
	case http.StatusOK:
		if p.done > 0 {
			if err := p.reset(); err != nil {
				return err
			}
		}
		if resp.ContentLength >= 0 {
			return p.expect(resp.ContentLength)
		}
		return nil
	case http.StatusPartialContent:
		var first, last, total int64
		if n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); n != 3 || first != p.done || last != total-1 {
			return fmt.Errorf("the server answers with the wrong range %q", resp.Header.Get("Content-Range"))
		}
		return p.expect(total)
	}
	return statusError(resp.StatusCode)
}

// validatorOf is what If-Range may carry: a strong entity tag, or else a date.
func validatorOf(resp *http.Response) string {
	if tag := resp.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return resp.Header.Get("Last-Modified")
}

// readError tells failures of the connection from those of the disk, which io.Copy mixes.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// watchedReader puts off the watchdog whenever something comes.
type watchedReader struct {
	r        io.Reader
	watchdog *time.Timer
	stall    time.Duration
}

func (w watchedReader) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.watchdog.Reset(w.stall)
	if err != nil && err != io.EOF {
		err = readError{err}
	}
	return n, err
}
