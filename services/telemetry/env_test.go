package telemetry

import (
	"slices"
	"strings"
	"testing"
)

func TestFromEnv(t *testing.T) {
	off := Export{}
	tests := []struct {
		name string
		env  map[string]string
		want Export
	}{
		{"nothing asks", nil, off},
		{"empty is unset", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, off},
		{"other variables do not ask", map[string]string{"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:1"}, off},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, Export{Protocol: HTTP}},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/v1/traces"}, Export{Protocol: HTTP}},
		{"the port of gRPC", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, Export{Protocol: GRPC}},
		{"a protocol beats the port", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Export{Protocol: HTTP}},
		{"protocol", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Export{Protocol: GRPC}},
		{"protocol of traces wins", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:9", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, Export{Protocol: GRPC}},
		{"exporter alone", map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, Export{Protocol: HTTP, Endpoint: "http://localhost:4318/v1/traces"}},
		{"exporter over gRPC", map[string]string{"OTEL_TRACES_EXPORTER": "OTLP", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Export{Protocol: GRPC, Endpoint: "http://localhost:4317"}},
		{"none beats an endpoint", map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, off},
		{"an unknown exporter beats an endpoint", map[string]string{"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, off},
		{"disabled", map[string]string{"OTEL_SDK_DISABLED": "True", "OTEL_TRACES_EXPORTER": "otlp"}, off},
		{"not disabled", map[string]string{"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, Export{Protocol: HTTP}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, err := FromEnv(fake(test.env))
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Export != test.want {
				t.Errorf("Export = %+v, want %+v", cfg.Export, test.want)
			}
		})
	}
}

func TestFromEnvRefuses(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT":        {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4317"},
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "127.0.0.1:4318"},
		"OTEL_EXPORTER_OTLP_PROTOCOL":        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/xml"},
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"},
	} {
		if _, err := FromEnv(fake(env)); err == nil || !strings.Contains(err.Error(), name+"=") {
			t.Errorf("%v: error is %v, want one that names %s", env, err, name)
		}
	}
}

func TestFromEnvPropagators(t *testing.T) {
	tests := []struct {
		value   string
		want    []string
		ignored []string
	}{
		{"", []string{"tracecontext", "baggage"}, nil},
		{"tracecontext", []string{"tracecontext"}, nil},
		{" baggage , TraceContext,b3", []string{"baggage", "tracecontext"}, []string{"b3"}},
		{"jaeger", []string{"tracecontext", "baggage"}, []string{"jaeger"}},
		{"none", []string{"none"}, nil},
	}
	for _, test := range tests {
		cfg, err := FromEnv(fake(map[string]string{"OTEL_PROPAGATORS": test.value}))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cfg.Propagators, test.want) || !slices.Equal(cfg.ignored, test.ignored) {
			t.Errorf("%q: propagators %q, ignored %q, want %q and %q", test.value, cfg.Propagators, cfg.ignored, test.want, test.ignored)
		}
	}
}

func fake(env map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, set := env[name]
		return value, set
	}
}
