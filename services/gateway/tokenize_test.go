package gateway

import "testing"

func TestTokenize(t *testing.T) {
	s := start(t, say(""))
	for _, c := range []struct{ path, body, want string }{
		{"/tokenize", `{"prompt":"hi"}`, `{"count":3,"max_model_len":64,"tokens":[256,104,105],"token_strs":null}`},
		{"/tokenize", `{"prompt":"h<|im_end|>","add_special_tokens":false,"return_token_strs":true}`,
			`{"count":2,"max_model_len":64,"tokens":[104,258],"token_strs":["h","<|im_end|>"]}`},
		{"/tokenize", `{"prompt":"","add_special_tokens":false}`, `{"count":0,"max_model_len":64,"tokens":[],"token_strs":null}`},
		{"/detokenize", `{"tokens":[104,105,195,169,258]}`, `{"prompt":"hié<|im_end|>"}`},
		{"/detokenize", `{"tokens":[]}`, `{"prompt":""}`},
	} {
		if res, got := post(t, s.URL+c.path, c.body); res.StatusCode != 200 || string(got) != c.want {
			t.Errorf("%s %s: %d %s", c.path, c.body, res.StatusCode, got)
		}
	}
}
