//go:build linux

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/daisy-llm/daisy/deploy/lab/lab"
)

// machineFlags say what the machines are like. Each is one value or a list, one per machine; the last holds for all that follow.
type machineFlags struct {
	memory, cpu, rate string
	period            time.Duration
}

// configs are the machines of these names.
func (f machineFlags) configs(names []string) ([]lab.MachineConfig, error) {
	machines := make([]lab.MachineConfig, len(names))
	for i, name := range names {
		m := lab.MachineConfig{Name: name, Period: f.period}
		var err error
		if m.Memory, err = nth(f.memory, i, sizeOf); err != nil {
			return nil, fmt.Errorf("--memory %s: %w", f.memory, err)
		}
		if m.CPU, err = nth(f.cpu, i, coresOf); err != nil {
			return nil, fmt.Errorf("--cpu %s: %w", f.cpu, err)
		}
		if m.Rate, err = nth(f.rate, i, rateOf); err != nil {
			return nil, fmt.Errorf("--rate %s: %w", f.rate, err)
		}
		machines[i] = m
	}
	return machines, nil
}

// nth reads the value that a list has for a machine.
func nth[T any](list string, n int, read func(string) (T, error)) (value T, err error) {
	values := strings.Split(list, ",")
	for _, text := range values { // all of them, so that a mistake is found whatever the number of machines
		if _, err := read(text); err != nil {
			return value, err
		}
	}
	return read(values[min(n, len(values)-1)])
}

func sizeOf(text string) (int64, error) {
	size, err := humanize.ParseBytes(text)
	if err != nil || size > math.MaxInt64 {
		return 0, fmt.Errorf("%q is no size: use 230MB, 1GiB or 0 for no limit", text)
	}
	return int64(size), nil
}

func coresOf(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n < 1e6) {
		return 0, fmt.Errorf("%q is no number of cores: use 0.4, 2 or 0 for no limit", text)
	}
	return n, nil
}

// rateOf reads a rate as tc writes it.
func rateOf(text string) (int64, error) {
	number, unit := text, 1.0
	for _, known := range []struct {
		name  string
		worth float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		if before, ok := strings.CutSuffix(strings.ToLower(text), known.name); ok {
			number, unit = before, known.worth
			break
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n >= 0 && n*unit <= 1e12) {
		return 0, fmt.Errorf("%q is no rate: use 100mbit, 1gbit or 0 for no limit", text)
	}
	return int64(n * unit), nil
}

// shareOf reads a part of all packets.
func shareOf(text string) (float64, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if percent {
		n /= 100
	}
	if err != nil || !(n >= 0 && n <= 1) {
		return 0, fmt.Errorf("%q is no share: use 1%% or 0.01", text)
	}
	return n, nil
}
