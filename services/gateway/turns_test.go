package gateway

import "strings"

// turns is a template with the ChatML form.
type turns struct{}

func (turns) Render(list []message) (string, error) {
	var b strings.Builder
	for _, m := range list {
		b.WriteString("<|im_start|>" + m.role + "\n" + m.content + "<|im_end|>\n")
	}
	b.WriteString("<|im_start|>assistant\n")
	return b.String(), nil
}
