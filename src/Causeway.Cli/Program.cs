using System.CommandLine;
using Causeway.Cli;
using Causeway.Cli.Options;

// Under a name that ends in "virtiofsd" the program is one: its options stand at the top, without a command.
string invokedAs = Path.GetFileName(Environment.GetCommandLineArgs()[0]);
bool isVirtiofsd = invokedAs.EndsWith("virtiofsd", StringComparison.Ordinal);

var root = new RootCommand("Causeway shares host directories with virtual machines by virtio-fs.");
var syntax = new ServeSyntax();
Command serve = root;
if (!isVirtiofsd)
{
    serve = new Command("serve", "share a directory: the vhost-user-fs daemon that QEMU connects to");
    root.Subcommands.Add(serve);
}

syntax.AddTo(serve);
serve.SetAction(parsed => ServeCommand.Run(new ServeOptionsReader(syntax, parsed).Read()));

try
{
    ParseResult parsed = root.Parse(LegacyOptions.Expand(args));
    if (args.Length == 0)
    {
        root.Parse("--help").Invoke();
        return ExitStatus.Usage;
    }

    if (parsed.Errors is [var error, ..])
    {
        throw new UsageException(error.Message);
    }

    return parsed.Invoke(new InvocationConfiguration { EnableDefaultExceptionHandler = false });
}
catch (UsageException exception)
{
    Console.Error.WriteLine($"causeway: {exception.Message}");
    return ExitStatus.Usage;
}
// What start-up code throws is written for the operator: what failed, on what, why, and what to do.
catch (Exception exception) when (exception is StartupException or IOException or ArgumentException)
{
    Console.Error.WriteLine($"causeway: {exception.Message}");
    return ExitStatus.Failure;
}
