// Renders the templates on stdin as Ollama does (its template/template.go), and counts those that come out as wanted.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"text/template"
)

type message struct{ Role, Content string }

type testCase struct {
	Template string
	Messages []*message
	Want     string
}

func main() {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	same := 0
	for _, c := range cases {
		parsed := template.Must(template.New("").Option("missingkey=zero").Parse(c.Template))
		var text bytes.Buffer
		if err := parsed.Execute(&text, map[string]any{"Messages": c.Messages, "Response": ""}); err != nil {
			panic(err)
		}
		if text.String() == c.Want {
			same++
		} else {
			fmt.Printf("%q\n%q\n", text.String(), c.Want)
		}
	}
	fmt.Printf("%d the same\n", same)
}
