package main

import (
	"strings"
	"unicode"
)

// printable drops what would move a terminal's cursor or change its state: names and messages come from other machines.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) || r == '\u200d' || r == '\ufe0f' { // the last two join emoji
			return r
		}
		return -1
	}, s)
}
