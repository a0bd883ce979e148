using System.CommandLine;
using Causeway.Driver;

namespace Causeway.Cli.Client;

/// <summary>The commands that use a share from user space: no mount, no virtual machine.</summary>
internal static class ClientCommands
{
    // What a shell reports for a program ended by SIGINT.
    private const int Interrupted = 128 + 2;

    // A daemon that hangs is to be an error, not a command that hangs.
    private static readonly TimeSpan ReplyTimeout = TimeSpan.FromSeconds(60);

    private static readonly Option<bool> Json = new("--json") { Description = "print JSON, for scripts" };

    /// <summary>Adds the commands.</summary>
    public static void AddTo(Command root)
    {
        root.Subcommands.Add(List());
        root.Subcommands.Add(Status());
        root.Subcommands.Add(Concatenate());
        root.Subcommands.Add(Copy());
        root.Subcommands.Add(Find());
        root.Subcommands.Add(FreeSpace());
    }

    /// <summary>Connects for a command: everything is asked for once, so what is known stays known.</summary>
    internal static ValueTask<VirtioFsClient> ConnectAsync(
        SharePath place, CacheMode cache, CancellationToken cancellationToken) => VirtioFsClient.ConnectAsync(
            place.Socket!,
            new VirtioFsClientOptions
            {
                Cache = cache,
                MaxCachedBytes = 1 << 20,
                Transport = new VirtioFsTransportOptions { ReplyTimeout = ReplyTimeout },
            },
            cancellationToken);

    private static Command List()
    {
        Argument<string[]> places = Places("SOCK:PATH", "a directory or another object of a share");
        Option<bool> details = new("-l") { Description = "with type, permissions, owner, size and time" };
        var command = new Command("ls", "list a directory of a share") { places, details, Json };
        SetAction(command, (parsed, cancellation) => ListCommand.RunAsync(
            Parse(parsed.GetValue(places)),
            parsed.GetValue(Json) ? Output.Json : parsed.GetValue(details) ? Output.Long : Output.Names,
            cancellation));
        return command;
    }

    private static Command Status()
    {
        Argument<string[]> places = Places("SOCK:PATH", "an object of a share; a symbolic link is shown itself");
        var command = new Command("stat", "show the attributes of an object of a share") { places, Json };
        SetAction(command, (parsed, cancellation) => StatusCommand.RunAsync(
            Parse(parsed.GetValue(places)), parsed.GetValue(Json) ? Output.Json : Output.Long, cancellation));
        return command;
    }

    private static Command Concatenate()
    {
        Argument<string[]> places = Places("SOCK:PATH", "a file of a share");
        var command = new Command("cat", "write files of a share to standard output") { places };
        SetAction(command, (parsed, cancellation) =>
            CopyCommand.ConcatenateAsync(Parse(parsed.GetValue(places)), cancellation));
        return command;
    }

    private static Command Copy()
    {
        Argument<string[]> places = new("SOURCE... DESTINATION")
        {
            Description = "places in shares (SOCK:PATH) or on this machine",
            Arity = new ArgumentArity(2, 100_000),
        };
        Option<bool> recursive = new("-r", "--recursive") { Description = "copy directories with all that is in them" };
        var command = new Command("cp", "copy files between shares and this machine") { places, recursive };
        SetAction(command, (parsed, cancellation) => CopyCommand.RunAsync(
            [.. parsed.GetValue(places)!.Select(SharePath.ParseAny)], parsed.GetValue(recursive), cancellation));
        return command;
    }

    private static Command Find()
    {
        Argument<string> place = new("SOCK:PATH") { Description = "where to start" };
        Option<string> name = new("--name") { HelpName = "PATTERN", Description = "only names like PATTERN, with * and ?" };
        Option<string> type = new("--type") { HelpName = "T", Description = "only files (f), directories (d) or links (l)" };
        type.AcceptOnlyFromAmong("f", "d", "l");
        var command = new Command("find", "list everything below a directory of a share") { place, name, type, Json };
        SetAction(command, (parsed, cancellation) => FindCommand.RunAsync(
            SharePath.Parse(parsed.GetValue(place)!),
            new FindFilter(parsed.GetValue(name), parsed.GetValue(type)),
            parsed.GetValue(Json) ? Output.Json : Output.Names,
            cancellation));
        return command;
    }

    private static Command FreeSpace()
    {
        Argument<string[]> places = Places("SOCK[:PATH]", "a share");
        var command = new Command("df", "show how much space a share has") { places, Json };
        SetAction(command, (parsed, cancellation) => FreeSpaceCommand.RunAsync(
            Parse(parsed.GetValue(places)), parsed.GetValue(Json) ? Output.Json : Output.Long, cancellation));
        return command;
    }

    private static Argument<string[]> Places(string name, string description) =>
        new(name) { Description = description, Arity = ArgumentArity.OneOrMore };

    private static SharePath[] Parse(string[]? places) => [.. (places ?? []).Select(SharePath.Parse)];

    private static void SetAction(Command command, Func<ParseResult, CancellationToken, Task> run) =>
        command.SetAction(async (parsed, cancellation) =>
        {
            try
            {
                await run(parsed, cancellation).ConfigureAwait(false);
                return ExitStatus.Success;
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return Interrupted;
            }
        });
}

/// <summary>How a command prints.</summary>
internal enum Output
{
    /// <summary>One name per line.</summary>
    Names,

    /// <summary>One object per line with its attributes, or one attribute per line.</summary>
    Long,

    /// <summary>JSON.</summary>
    Json,
}
