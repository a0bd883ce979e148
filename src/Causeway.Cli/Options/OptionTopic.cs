using System.CommandLine;

namespace Causeway.Cli.Options;

/// <summary>
/// The options of one topic: their syntax, and how their values become settings. All values are taken as text, and every
/// option may be repeated, the last one counting, as in virtiofsd.
/// </summary>
internal abstract class OptionTopic
{
    private readonly List<Option> _options = [];

    /// <summary>Adds the topic's options to a command.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in _options)
        {
            command.Options.Add(option);
        }
    }

    /// <summary>An option with a value: <c>--name VALUE</c> or <c>--name=VALUE</c>.</summary>
    protected Option<string[]> Value(string name, string placeholder, string description) => Add(
        new Option<string[]>(name)
        {
            Arity = ArgumentArity.OneOrMore,
            Description = description,
            HelpName = placeholder,
        });

    /// <summary>An option whose value may be left out: <c>--name</c> or <c>--name=VALUE</c>.</summary>
    protected Option<string[]> OptionalValue(string name, string placeholder, string description) => Add(
        new Option<string[]>(name)
        {
            Arity = ArgumentArity.ZeroOrMore,
            Description = description,
            HelpName = placeholder,
        });

    /// <summary>An option without a value.</summary>
    protected Option<bool> Switch(string name, string description) =>
        Add(new Option<bool>(name) { Description = description });

    /// <summary>Leaves an option out of the help: deprecated, or not provided yet.</summary>
    protected static T Hidden<T>(T option)
        where T : Option
    {
        option.Hidden = true;
        return option;
    }

    private T Add<T>(T option)
        where T : Option
    {
        _options.Add(option);
        return option;
    }
}
