package telemetry

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Protocol is how traces travel to the collector.
type Protocol string

const (
	GRPC Protocol = "grpc"
	HTTP Protocol = "http/protobuf"
)

// Export says where traces go. The zero value exports nothing.
type Export struct {
	// Protocol is empty when nothing is exported.
	Protocol Protocol
	// Endpoint is a URL, used only where the variables name none; the exporter itself reads what they name, with headers,
	// certificates, timeouts and compression.
	Endpoint string
}

// FromEnv reads what the standard OTEL_ variables ask for: OTEL_SDK_DISABLED, OTEL_TRACES_EXPORTER, OTEL_PROPAGATORS,
// and OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL with their TRACES forms. Traces are exported when an
// exporter or an endpoint is named, never because nothing was said. The caller adds who it is.
//
// Other variables of the specification (headers, sampler, limits, resource attributes) are read by the OpenTelemetry SDK
// when Start sets it up.
func FromEnv(lookup func(name string) (value string, set bool)) (Config, error) {
	env := environment{lookup}
	var cfg Config

	cfg.Propagators, cfg.ignored = choose(env.get("OTEL_PROPAGATORS"), "tracecontext", "baggage", "none")
	if len(cfg.Propagators) == 0 {
		cfg.Propagators = []string{"tracecontext", "baggage"}
	}

	if strings.EqualFold(env.get("OTEL_SDK_DISABLED"), "true") {
		return cfg, nil
	}
	exporters, ignored := choose(env.get("OTEL_TRACES_EXPORTER"), "otlp", "none")
	cfg.ignored = append(cfg.ignored, ignored...)
	if slices.Contains(exporters, "none") {
		return cfg, nil
	}
	if len(exporters) == 0 && len(ignored) > 0 {
		return cfg, nil // an exporter was named, but none that Daisy has
	}
	endpointVar, endpoint := env.first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if len(exporters) == 0 && endpoint == "" {
		return cfg, nil
	}

	var port string
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return Config{}, fmt.Errorf("%s=%q is no collector's address: write it as http://HOST:PORT, or https:// for TLS", endpointVar, endpoint)
		}
		port = u.Port()
	}
	protocolVar, protocol := env.first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
	switch {
	case protocol == string(GRPC), protocol == "" && port == "4317":
		// 4317 is the port registered for OTLP over gRPC: nobody who names it alone means HTTP.
		cfg.Export = Export{Protocol: GRPC}
	case protocol == string(HTTP), protocol == "":
		cfg.Export = Export{Protocol: HTTP}
	default:
		return Config{}, fmt.Errorf("%s=%q is not known: use %s or %s", protocolVar, protocol, GRPC, HTTP)
	}
	if endpoint == "" {
		cfg.Export.Endpoint = map[Protocol]string{GRPC: "http://localhost:4317", HTTP: "http://localhost:4318/v1/traces"}[cfg.Export.Protocol]
	}
	return cfg, nil
}

type environment struct {
	lookup func(string) (string, bool)
}

// get gives a variable's value; the specification makes an empty one equal to an unset one.
func (e environment) get(name string) string {
	value, _ := e.lookup(name)
	return strings.TrimSpace(value)
}

// first gives the first of the variables that has a value.
func (e environment) first(names ...string) (name, value string) {
	for _, name := range names {
		if value := e.get(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

// choose splits a comma-separated list into the words that are known and those that are not. The specification asks for
// the latter to be passed over with a warning: the variables are often set for a whole machine.
func choose(list string, known ...string) (chosen, ignored []string) {
	for word := range strings.SplitSeq(list, ",") {
		switch word = strings.ToLower(strings.TrimSpace(word)); {
		case word == "":
		case slices.Contains(known, word):
			chosen = append(chosen, word)
		default:
			ignored = append(ignored, word)
		}
	}
	return chosen, ignored
}
