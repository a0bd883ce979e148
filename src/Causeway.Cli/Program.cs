using System.CommandLine;
using Causeway.Cli;
using Causeway.Cli.Client;

var root = new RootCommand("Causeway shares host directories with virtual machines by virtio-fs.");
VersionAnswer.AddTo(root);
if (Invocation.IsVirtiofsd)
{
    ServeCommand.Define(root);
}
else
{
    var serve = new Command("serve", "share a directory: the vhost-user-fs daemon that QEMU connects to");
    ServeCommand.Define(serve);
    root.Subcommands.Add(serve);
    root.Subcommands.Add(MountCommand.CreateMount());
    root.Subcommands.Add(MountCommand.CreateUmount());
    root.Subcommands.Add(VirtualMachineCommand.Create());
    root.Subcommands.Add(BenchCommand.Create());
    ClientCommands.AddTo(root);
}

try
{
    // No response files: a path may begin with '@'.
    ParseResult parsed = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
    if (args.Length == 0)
    {
        root.Parse("--help").Invoke(new InvocationConfiguration { Output = Console.Error });
        return ExitStatus.Usage;
    }

    if (parsed.Errors is [var error, ..])
    {
        throw new UsageException($"{error.Message.TrimEnd('.')}; '--help' lists what there is");
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
