package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"seedbed/appliance/configuration"
)

const configUsage = "`FILE` of the configuration; flags take precedence over what it says"

// notConfigurable are flags that a configuration file cannot hold: the last say which appliance elsewhere a person asks.
var notConfigurable = []string{"config", "check", "json", "help", "appliance", "token-file", "fingerprint", "ca-file"}

// settings returns the flags that the configuration file may give, those of all commands first.
func settings(root *cobra.Command) (list []*pflag.Flag) {
	add := func(f *pflag.Flag) {
		if !slices.Contains(notConfigurable, f.Name) {
			list = append(list, f)
		}
	}
	root.PersistentFlags().SortFlags = false
	root.PersistentFlags().VisitAll(add)
	for _, c := range root.Commands() {
		if c.Name() == "serve" {
			c.LocalNonPersistentFlags().VisitAll(add)
		}
	}
	return list
}

// configure gives the flags of a command, and those of serve, what the configuration file says. The file that is read unless
// another one is named need not be there; who does not serve need not be allowed to read it.
func (o *options) configure(cmd *cobra.Command, _ []string) error {
	if cmd.Annotations[withoutConfig] != "" || strings.HasPrefix(cmd.Name(), cobra.ShellCompRequestCmd) || cmd.Name() == "completion" {
		return nil
	}
	return o.readConfiguration(cmd)
}

// readConfiguration is configure for a command that does so itself.
func (o *options) readConfiguration(cmd *cobra.Command) error {
	named := cmd.Flags().Changed("config")
	file, err := configuration.Read(o.configFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !named:
		return nil
	case errors.Is(err, fs.ErrPermission) && !named && cmd.Name() != "serve":
		return nil
	case err == nil:
		err = file.Apply(settings(cmd.Root()))
	}
	if err != nil {
		return usageError{fmt.Errorf("the configuration cannot be used:\n%w", err)}
	}
	o.file = file
	return nil
}

// withoutConfig annotates commands that do not read the configuration.
const withoutConfig = "seedbed_without_config"

// flagName finds the flags that an error speaks of.
var flagName = regexp.MustCompile(`--([a-z][a-z-]*)`)

// located says of an error about a flag in which line of the configuration its value is, if it comes from there.
func (o *options) located(cmd *cobra.Command, err error) error {
	if err == nil || o.file == nil {
		return err
	}
	for _, m := range flagName.FindAllStringSubmatch(err.Error(), -1) {
		f := cmd.Flags().Lookup(m[1])
		if line := o.file.Line(m[1]); f != nil && !f.Changed && line > 0 {
			located := fmt.Errorf("%s:%d: %w", o.file.Path, line, err)
			if _, usage := errors.AsType[usageError](err); usage {
				return usageError{located}
			}
			return located
		}
	}
	return err
}

// origin says where the value of a flag comes from.
func (o *options) origin(f *pflag.Flag) string {
	switch line := o.file.Line(f.Name); {
	case f.Changed:
		return "command line"
	case line > 0:
		return fmt.Sprintf("%s:%d", o.file.Path, line)
	}
	return "default"
}

// explicitDefault is how the help of a flag tells its default where that is no plain value.
var explicitDefault = regexp.MustCompile(`\(default: (.*)\)$`)

// defaultText is the default of a flag as its help tells it.
func defaultText(f *pflag.Flag) string {
	if m := explicitDefault.FindStringSubmatch(f.Usage); m != nil {
		return m[1]
	}
	return f.DefValue
}

// whatText is what a flag is for, without its default.
func whatText(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	return strings.TrimSpace(explicitDefault.ReplaceAllString(usage, ""))
}

// yamlText writes a value as the configuration file has it.
func yamlText(f *pflag.Flag, value string) string {
	switch f.Value.Type() {
	case "bool", "int", "int64", "duration":
		return value
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
	if f.Value.Type() == configuration.TypeList {
		node = yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, e := range strings.Split(value, ",") {
			if e != "" {
				node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e})
			}
		}
	}
	b, err := yaml.Marshal(&node)
	if err != nil {
		return value
	}
	return strings.TrimSpace(string(b))
}

func configCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "The configuration file of this host",
		Long: "The configuration file has a key for each flag of \"seedbed serve\" and of all commands: the flag's name with underscores.\n" +
			"Flags take precedence. \"seedbed serve --check\" says whether an appliance could start with it."}
	var asJSON bool
	show := &cobra.Command{Use: "show", Short: "Print what is in force, and where each value comes from", Args: cobra.NoArgs}
	show.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		if asJSON {
			return printJSON(cmd.OutOrStdout(), o.inForce(cmd.Root()))
		}
		return o.printInForce(cmd.OutOrStdout(), cmd.Root())
	}
	standard := &cobra.Command{Use: "default", Short: "Print a configuration file with every key at its default", Args: cobra.NoArgs,
		Annotations: map[string]string{withoutConfig: "yes"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printDefaults(cmd.OutOrStdout(), cmd.Root())
		}}
	cmd.AddCommand(show, standard)
	return cmd
}

// inForce is one setting as it is.
type inForce struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
	Origin  string `json:"origin"` // "default", "command line", "FILE:LINE"
}

func (o *options) inForce(root *cobra.Command) (list []inForce) {
	for _, f := range settings(root) {
		list = append(list, inForce{configuration.Key(f.Name), shown(f), defaultText(f), o.origin(f)})
	}
	return list
}

// shown is the value of a setting as it may be shown. A password has no place in it, and serve refuses it there; somebody wrote one all
// the same.
func shown(f *pflag.Flag) string { return withoutPassword(f.Value.String()) }

// hidden stands in the place of what is secret.
const hidden = "xxxxx"

// secretInText finds what is secret in a location that is no proper URL: what is between "//" and the last "@".
var secretInText = regexp.MustCompile(`//.*@`)

// withoutPassword returns a location with its passwords hidden; all else is as it was.
func withoutPassword(location string) string {
	scheme, _, isURL := strings.Cut(location, "://")
	if !isURL || strings.ContainsAny(scheme, "/ ") {
		return location
	}
	u, err := url.Parse(location)
	if err != nil {
		location, _, _ = strings.Cut(location, "?")
		return secretInText.ReplaceAllString(location, "//"+hidden+"@")
	}
	q, found := u.Query(), false
	for key, values := range q {
		for i, v := range values {
			if strings.Contains(strings.ToLower(key), "password") || strings.Contains(strings.ToLower(key), "secret") {
				values[i], found = hidden, true
			} else if inner := withoutPassword(v); inner != v { // the endpoint of a storage
				values[i], found = inner, true
			}
		}
	}
	if _, has := u.User.Password(); !has && !found {
		return location
	}
	if found {
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// printInForce writes the settings as a configuration file.
func (o *options) printInForce(w io.Writer, root *cobra.Command) error {
	for _, f := range settings(root) {
		line, origin := configuration.Key(f.Name)+": "+yamlText(f, shown(f)), o.origin(f)
		if f.Value.String() == "" {
			line, origin = "# "+configuration.Key(f.Name)+":", "default: "+defaultText(f)
		}
		if _, err := fmt.Fprintf(w, "%-48s # %s\n", line, origin); err != nil {
			return err
		}
	}
	return nil
}

// printDefaults writes a configuration file that changes nothing.
func printDefaults(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	b.WriteString("# Configuration of Seedbed's appliance. A line without its # takes the place of the default; flags of the command line take\n" +
		"# precedence. `seedbed serve --check` says whether an appliance could start with it.\n")
	for _, f := range settings(root) {
		value := yamlText(f, f.Value.String())
		if f.Changed || f.Value.String() != f.DefValue {
			value = yamlText(f, f.DefValue)
		}
		fmt.Fprintf(&b, "\n# %s\n# Default: %s\n# %s: %s\n", whatText(f), or(defaultText(f), "none"), configuration.Key(f.Name), value)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// networks are a flag that names networks and addresses, separated by commas.
type networks []netip.Prefix

var _ pflag.Value = (*networks)(nil)

// Set implements pflag.Value.
func (n *networks) Set(s string) error {
	var list networks
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		p, err := netip.ParsePrefix(word)
		if err != nil {
			a, addrErr := netip.ParseAddr(word)
			if addrErr != nil || a.Zone() != "" {
				return fmt.Errorf("%q is neither a network, as 10.1.0.0/16, nor an address", word)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		list = append(list, p.Masked())
	}
	*n = list
	return nil
}

// String implements pflag.Value.
func (n *networks) String() string {
	var words []string
	for _, p := range *n {
		words = append(words, p.String())
	}
	return strings.Join(words, ",")
}

// Type implements pflag.Value.
func (n *networks) Type() string { return configuration.TypeList }

// contain reports whether an address is in one of the networks.
func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}
