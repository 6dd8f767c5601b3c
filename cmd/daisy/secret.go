package main

import (
	"os"
	"strings"
	"unsafe"
)

// secretFlag is a flag that is a secret. Once it is read, it no longer stands among the process's arguments, which every user of
// the machine may list; help and errors do not show it.
type secretFlag struct{ text string }

func (s *secretFlag) String() string { return "" }
func (s *secretFlag) Type() string   { return "string" }

func (s *secretFlag) Set(text string) error {
	s.text = strings.Clone(text)
	blank(text)
	return nil
}

// blank overwrites text where it lies in the memory of the process's arguments; os.Args are views of that, where the system
// keeps them there, and so is a flag's value.
func blank(text string) {
	if text == "" || !argumentsAreOriginal {
		return
	}
	at := uintptr(unsafe.Pointer(unsafe.StringData(text)))
	for _, argument := range os.Args {
		begin := uintptr(unsafe.Pointer(unsafe.StringData(argument)))
		if at >= begin && at+uintptr(len(text)) <= begin+uintptr(len(argument)) {
			memory := unsafe.Slice(unsafe.StringData(text), len(text))
			for i := range memory {
				memory[i] = 'x'
			}
			return
		}
	}
}
