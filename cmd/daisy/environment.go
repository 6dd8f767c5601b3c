package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// environment is all that Daisy takes from environment variables. Flags override it.
type environment struct {
	cacheDir   string // DAISY_CACHE_DIR: where models are kept
	kernels    string // DAISY_KERNELS: the kernels to use, instead of the best this CPU can run
	hfEndpoint string // HF_ENDPOINT: a mirror of Hugging Face
	hfToken    string // HF_TOKEN: sent to it, for models that need one
	token      string // DAISY_TOKEN: lets this process into a secured cluster
	stateDir   string // DAISY_STATE_DIR: where keys and certificates are kept

	// lookup is for services/telemetry, which knows the OTEL_ variables.
	lookup func(name string) (value string, set bool)
}

func readEnvironment(lookup func(string) (string, bool)) environment {
	get := func(name string) string {
		value, _ := lookup(name)
		return value
	}
	return environment{
		cacheDir:   get("DAISY_CACHE_DIR"),
		kernels:    get("DAISY_KERNELS"),
		hfEndpoint: get("HF_ENDPOINT"),
		hfToken:    get("HF_TOKEN"),
		token:      get("DAISY_TOKEN"),
		stateDir:   get("DAISY_STATE_DIR"),
		lookup:     lookup,
	}
}

// cacheFolder is where models are kept: what was asked for, else daisy in the user's cache folder.
func (e environment) cacheFolder() (string, error) {
	if e.cacheDir != "" {
		return filepath.Abs(e.cacheDir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for models: %w: set DAISY_CACHE_DIR or --cache-dir", err)
	}
	return filepath.Join(dir, "daisy"), nil
}
